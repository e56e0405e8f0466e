use url::{Host, Url};

/// The address of a service: `https://HOST`, with a port and a path where it has them. Plaintext is taken on loopback, and
/// elsewhere where the operator allows it.
///
/// # Errors
/// What is wrong with it; the text itself is not repeated, because it may hold a password.
pub fn service_address(text: &str, allow_plaintext: bool) -> Result<Url, String> {
    let url =
        Url::parse(text).map_err(|error| format!("is no address such as https://host:port: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user and no password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with the host, the port or a path".to_owned());
    }
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err("names no host".to_owned()),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback || allow_plaintext => Ok(url),
        "http" => Err("must be https, because keys and credentials pass; on a network that is trusted, \
                       allow_plaintext = true permits http"
            .to_owned()),
        _ => Err("must be https".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_for_loopback_or_where_it_is_allowed() {
        for (text, strict, lenient) in [
            ("https://bao.example:8200", true, true),
            ("https://bao.example/prefix", true, true),
            ("http://127.0.0.1:8200", true, true),
            ("http://127.8.9.1", true, true),
            ("http://[::1]:8200", true, true),
            ("http://localhost:8200", true, true),
            ("http://bao.example", false, true),
            ("http://10.0.0.1", false, true),
            ("http://localhost.example", false, true),
            ("ftp://127.0.0.1", false, false),
            ("https://user:hunter2@bao.example", false, false),
            ("https://bao.example?x=hunter2", false, false),
            ("bao.example:8200", false, false),
            ("unix:/run/bao", false, false),
            ("", false, false),
        ] {
            assert_eq!(service_address(text, false).is_ok(), strict, "{text}");
            assert_eq!(service_address(text, true).is_ok(), lenient, "{text}");
            let said = service_address(text, false).err().unwrap_or_default();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
