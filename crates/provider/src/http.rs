//! The one place that builds HTTP clients for vendors.
//!
//! A call is sent once at most, follows no redirect, uses no proxy from the environment, reaches no address inside the
//! operator's network unless told to, and reads a bounded answer in a bounded time.

use std::error::Error as StdError;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use tokenward_types::Timestamp;
use tokenward_types::net::is_public_address;
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::{ErrorClass, ProviderError};

/// How long connecting may take, TLS included, unless told otherwise.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a call may take, connecting included, unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The most of an answer that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// The longest that a vendor can ask to be left alone.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(30 * 24);
/// Idle connections are closed before most servers close them, so that a request seldom meets a closing connection.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// How a provider calls its vendor.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a call may take, connecting included.
    pub timeout: Duration,
    /// Plaintext HTTP is refused unless this is set.
    pub allow_http: bool,
    /// Private, loopback, link-local and such addresses are refused unless this is set.
    pub allow_private_addresses: bool,
    /// Certificate authorities that are trusted beside the system's.
    pub certificates: Vec<reqwest::Certificate>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            timeout: DEFAULT_TIMEOUT,
            allow_http: false,
            allow_private_addresses: false,
            certificates: Vec::new(),
        }
    }
}

impl HttpSettings {
    /// Whether `url` may be called, as far as its text shows: names are judged when they are resolved.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn permits(&self, url: &Url) -> Result<(), &'static str> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err("names no host"),
        };
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            _ => return Err("must be https; for tests, allow_http = true permits http"),
        }
        if !self.allow_private_addresses && address.is_some_and(|address| !is_public_address(address)) {
            return Err("is no public address; allow_private_addresses = true permits it");
        }
        Ok(())
    }
}

/// Calls one vendor. Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
    settings: HttpSettings,
}

/// What a vendor answered.
pub struct HttpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The `Retry-After` header as it came.
    pub retry_after: Option<String>,
    /// The body, wiped when dropped; or why there is none.
    pub body: Result<Zeroizing<Vec<u8>>, &'static str>,
}

impl HttpClient {
    /// A client after `settings`.
    ///
    /// # Errors
    /// TLS cannot be set up, such as on a system without any certificate authority.
    pub fn new(settings: HttpSettings) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("tokenward/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .https_only(!settings.allow_http)
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            // With HTTP/2 all calls would share one connection, and slow answers would use up its streams.
            .http1_only()
            .referer(false)
            .no_proxy()
            .pool_idle_timeout(POOL_IDLE)
            .dns_resolver(SystemResolver { allow_private: settings.allow_private_addresses })
            .tls_certs_merge(settings.certificates.iter().cloned())
            .build()?;
        Ok(Self { client, settings })
    }

    /// The settings that it was built with.
    pub fn settings(&self) -> &HttpSettings {
        &self.settings
    }

    /// Posts a form once.
    ///
    /// # Errors
    /// `NotSent` when not a byte of the request went out, else `OutcomeUnknown`. Any status is an answer.
    pub async fn post_form(
        &self,
        url: &Url,
        authorization: Option<HeaderValue>,
        form: Zeroizing<Vec<u8>>,
    ) -> Result<HttpAnswer, ProviderError> {
        self.settings
            .permits(url)
            .map_err(|reason| ProviderError::new(ErrorClass::NotSent, format!("the address {reason}")))?;
        let mut request = self
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(reqwest::header::ACCEPT, "application/json")
            .body(Bytes::from_owner(form));
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.send().await.map_err(|error| describe(&error))?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok(HttpAnswer {
            status: response.status().as_u16(),
            retry_after: retry_after.map(str::to_owned),
            body: read(response).await,
        })
    }
}

async fn read(mut response: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    // All the room at once, so that growing leaves no copy of a token behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(chunk) = response.chunk().await.map_err(|_| "the answer was cut off")? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err("the answer is larger than 64 KiB");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Our own words for a failed call: the library's could repeat what the vendor sent.
fn describe(error: &reqwest::Error) -> ProviderError {
    if error.is_connect() {
        // Before the request is written there is nothing of the vendor's but its certificate to repeat.
        let detail = format!("cannot connect: {}", innermost(error));
        return ProviderError::new(ErrorClass::NotSent, detail);
    }
    if error.is_builder() {
        return ProviderError::new(ErrorClass::NotSent, "the request could not be built");
    }
    let detail = if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        match causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()) {
            Some(io) => format!("the connection broke: {}", io.kind()),
            None => "the connection broke, or the answer is not HTTP".to_owned(),
        }
    };
    ProviderError::new(ErrorClass::OutcomeUnknown, detail)
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

/// The operating system's resolver, which leaves out addresses that must not be reached. It decides on the very
/// addresses that are connected to, so that a name cannot change its mind in between.
struct SystemResolver {
    allow_private: bool,
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (usable, refused): (Vec<SocketAddr>, Vec<SocketAddr>) =
                found.partition(|address| allow_private || is_public_address(address.ip()));
            if usable.is_empty() && !refused.is_empty() {
                return Err(
                    "the name leads to no public address; allow_private_addresses = true permits it".into()
                );
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3): seconds or a date, at most [`MAX_RETRY_AFTER`]; a date that has passed is
/// zero, nonsense is `None`.
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if value.bytes().all(|b| b.is_ascii_digit()) && !value.is_empty() {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        let since_epoch = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        (Timestamp::from_micros(0) + since_epoch).until(now)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_date() {
        let now = Timestamp::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        for (value, expected) in [
            ("10", Some(10)),
            (" 10 ", Some(10)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("99999999999999999999999", Some(MAX_RETRY_AFTER.as_secs())),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(MAX_RETRY_AFTER.as_secs())),
            ("", None),
            ("-5", None),
            ("soon", None),
            ("1.5", None),
        ] {
            assert_eq!(parse_retry_after(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn private_literal_addresses_and_plaintext_are_refused() {
        let strict = HttpSettings::default();
        let lenient =
            HttpSettings { allow_http: true, allow_private_addresses: true, ..HttpSettings::default() };
        for (text, ok) in [
            ("https://api.vendor.example", true),
            ("https://1.1.1.1/token", true),
            ("http://api.vendor.example", false),
            ("https://127.0.0.1", false),
            ("https://2130706433/", false), // 127.0.0.1 as one number
            ("https://0x7f.1/", false),
            ("https://[::1]:8443", false),
            ("https://[::ffff:169.254.169.254]/", false),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(strict.permits(&url).is_ok(), ok, "{text}");
            assert_eq!(lenient.permits(&url), Ok(()), "{text}");
        }
        assert!(lenient.permits(&Url::parse("ftp://vendor.example").unwrap()).is_err());
    }
}
