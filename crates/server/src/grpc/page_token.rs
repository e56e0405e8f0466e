//! Page tokens: opaque to callers, bound to the listing that they came from.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tokenward_broker::Error;
use tokenward_storage::{MAX_PAGE_SIZE, PageRequest};
use tokenward_types::sha256;

const DEFAULT_PAGE_SIZE: u32 = 100;
const MAX_TOKEN_LENGTH: usize = 2048;
const BINDING: usize = 8;

/// A listing: the method and its filter.
pub(crate) struct Listing<'a> {
    /// The method's name.
    pub method: &'a str,
    /// What the listing is filtered by, in a fixed order.
    pub filter: &'a [&'a str],
}

impl Listing<'_> {
    /// Tells listings apart, so that a token of one is not taken for a place in another. Not a protection: a token opens
    /// nothing that its holder may not list anyway.
    fn binding(&self) -> [u8; BINDING] {
        let mut text = self.method.to_owned();
        for part in self.filter {
            text.push('\n');
            text.push_str(part);
        }
        let mut binding = [0; BINDING];
        binding.copy_from_slice(&sha256(text.as_bytes())[..BINDING]);
        binding
    }

    /// The page that a caller asks for.
    pub(crate) fn page(&self, page_size: i32, page_token: &str) -> Result<PageRequest, Error> {
        let size = match u32::try_from(page_size) {
            Err(_) => return Err(Error::invalid("page_size", "must not be negative")),
            Ok(0) => DEFAULT_PAGE_SIZE,
            Ok(size) => size.min(MAX_PAGE_SIZE),
        };
        if page_token.is_empty() {
            return Ok(PageRequest { size, after: None });
        }
        let invalid =
            || Error::invalid("page_token", "is not one that this listing gave out, with the same filter");
        if page_token.len() > MAX_TOKEN_LENGTH {
            return Err(invalid());
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(page_token).map_err(|_| invalid())?;
        let cursor = bytes.strip_prefix(&self.binding()).ok_or_else(invalid)?;
        let cursor = std::str::from_utf8(cursor).map_err(|_| invalid())?;
        Ok(PageRequest { size, after: Some(cursor.to_owned()) })
    }

    /// The token of the next page; empty on the last.
    pub(crate) fn next(&self, cursor: Option<&str>) -> String {
        cursor.map_or_else(String::new, |cursor| {
            BASE64_URL_SAFE_NO_PAD.encode([&self.binding()[..], cursor.as_bytes()].concat())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing<'_> = Listing { method: "ListConnections", filter: &["acme", ""] };

    #[test]
    fn a_token_leads_to_the_next_page_of_its_listing() {
        let token = LISTING.next(Some("acme\u{1f}con_7"));
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{token}");
        let page = LISTING.page(7, &token).unwrap();
        assert_eq!(page, PageRequest { size: 7, after: Some("acme\u{1f}con_7".into()) });
        assert_eq!(LISTING.next(None), "");
    }

    #[test]
    fn a_token_of_another_method_or_filter_is_refused() {
        let token = LISTING.next(Some("x"));
        for other in [
            Listing { method: "ListTenants", filter: &["acme", ""] },
            Listing { method: "ListConnections", filter: &["", "acme"] },
            Listing { method: "ListConnections", filter: &["acme"] },
        ] {
            let error = other.page(0, &token).unwrap_err();
            assert_eq!(error.metadata["field"], "page_token");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in ["x", "!!!!", &"A".repeat(5000), "AAAA", "////"] {
            assert!(LISTING.page(0, garbage).is_err(), "{garbage}");
        }
    }

    #[test]
    fn page_sizes_have_a_default_and_a_maximum() {
        assert_eq!(LISTING.page(0, "").unwrap().size, 100);
        assert_eq!(LISTING.page(5000, "").unwrap().size, 1000);
        assert_eq!(LISTING.page(-1, "").unwrap_err().metadata["field"], "page_size");
    }
}
