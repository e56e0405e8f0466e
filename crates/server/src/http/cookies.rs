//! Cookies (RFC 6265).

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// More cookies than this are not looked at.
const MAX_COOKIES: usize = 100;

/// The cookies of a request, as names and values. HTTP/2 may send them in several headers (RFC 9113, section 8.2.3).
pub(super) fn parse(headers: &HeaderMap) -> Vec<(&str, &str)> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .take(MAX_COOKIES)
        .collect()
}

/// How many bytes of cookies a request carries.
pub(super) fn size(headers: &HeaderMap) -> usize {
    headers.get_all(COOKIE).iter().map(HeaderValue::len).sum()
}

/// A `Set-Cookie` header; `None` if name or value do not fit into one. SameSite=Lax, because the provider sends the
/// browser back from another site. An empty `value` with no time left removes the cookie.
pub(super) fn set(name: &str, value: &str, max_age: Duration, secure: bool) -> Option<HeaderValue> {
    // RFC 6265, section 4.1.1: neither name nor value may end the pair early.
    let fits = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"\",;\\".contains(&b));
    if name.is_empty() || name.contains('=') || !fits(name) || !fits(value) {
        return None;
    }
    let secure = if secure { "; Secure" } else { "" };
    let seconds = max_age.as_secs();
    let text = format!("{name}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Lax{secure}");
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_several_headers_are_read_and_nonsense_is_left_out() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; b=x=y;c ; =; d="));
        headers.append(COOKIE, HeaderValue::from_static("e=2"));
        headers.append(COOKIE, HeaderValue::from_bytes(b"f=\xff").unwrap());
        assert_eq!(parse(&headers), [("a", "1"), ("b", "x=y"), ("", ""), ("d", ""), ("e", "2")]);
        assert_eq!(size(&headers), 20 + 3 + 3);
    }

    #[test]
    fn no_more_cookies_are_read_than_a_browser_sends() {
        let many = (0..1000).map(|i| format!("c{i}=1")).collect::<Vec<_>>().join("; ");
        let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(many).unwrap())]);
        assert_eq!(parse(&headers).len(), MAX_COOKIES);
    }

    #[test]
    fn a_cookie_is_for_this_host_and_not_for_scripts() {
        let header = set("__Host-attempt", "v", Duration::from_mins(10), true).unwrap();
        assert_eq!(header, "__Host-attempt=v; Max-Age=600; Path=/; HttpOnly; SameSite=Lax; Secure");
        assert!(header.is_sensitive());
        let loopback = set("attempt", "v", Duration::from_mins(10), false).unwrap();
        assert_eq!(loopback, "attempt=v; Max-Age=600; Path=/; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn what_would_end_the_pair_early_is_refused() {
        for (name, value) in
            [("", "v"), ("a=b", "v"), ("a", "v;Domain=evil"), ("a", "v\r\nx: y"), ("a b", "v")]
        {
            assert!(set(name, value, Duration::ZERO, true).is_none(), "{name:?} {value:?}");
        }
    }
}
