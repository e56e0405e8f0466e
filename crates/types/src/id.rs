//! Identifiers. All are short, case-sensitive ASCII; each kind is a type of its own, so that they cannot be mixed up.

use std::borrow::Borrow;
use std::fmt;

use arcstr::ArcStr;

use crate::{Clock, Rng};

/// A text that is not an identifier of the kind it was meant to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{kind} must be 1 to {max} characters: a letter or digit first, then letters, digits or any of \"{extra}\""
)]
pub struct InvalidId {
    /// What kind of identifier was meant, such as `tenant_id`.
    pub kind: &'static str,
    max: usize,
    extra: &'static str,
}

fn check(kind: &'static str, text: &str, max: usize, extra: &'static str) -> Result<(), InvalidId> {
    let body = |b: u8| b.is_ascii_alphanumeric() || extra.as_bytes().contains(&b);
    let well_formed = text.len() <= max
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(body);
    if well_formed { Ok(()) } else { Err(InvalidId { kind, max, extra }) }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal, $extra:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ArcStr);

        impl $name {
            /// Checks `text` and makes it an identifier.
            ///
            /// # Errors
            /// [`InvalidId`] names the kind and the rule.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check($kind, text, $max, $extra)?;
                Ok(Self(text.into()))
            }

            /// The text form.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }
    };
}

id!(
    /// A customer, as the platform team names it.
    TenantId, "tenant_id", 128, "._:-"
);
id!(
    /// Our registration at a provider, as the admin names it.
    OAuthClientId, "oauth_client_id", 64, "._-"
);
id!(
    /// A configured provider, such as `hubspot`: the name of its section in the configuration.
    ProviderName, "provider", 64, "._-"
);
id!(
    /// One tenant's grant to one OAuth client for one external account. Generated.
    ConnectionId, "connection_id", 64, "_-"
);
id!(
    /// An access rule, as the operator names it, or generated.
    AccessRuleId, "rule_id", 64, "._-"
);
id!(
    /// A connect link; the secret of the link is not part of it. Generated.
    ConnectLinkId, "connect_link_id", 64, "_-"
);
id!(
    /// The account at the vendor that a grant is for (HubSpot: the hub_id). Vendors choose these, so the rule is lenient.
    AccountId, "account_id", 255, "._:@/+=|~-"
);
id!(
    /// The identifier of one request, the caller's or a new one; it stands in every log line and error of that request.
    RequestId, "request_id", 128, "._:/+=-"
);
id!(
    /// An authenticated caller: `<issuer name>:<claim>`, such as `builtin:billing-service`.
    Principal, "principal", 255, "._:@/+=|-"
);

macro_rules! generated {
    ($name:ident, $prefix:literal) => {
        impl $name {
            /// A new identifier; those made later sort later.
            pub fn generate(clock: &dyn Clock, rng: &dyn Rng) -> Self {
                Self(format!(concat!($prefix, "_{}"), generate_suffix(clock, rng)).into())
            }
        }
    };
}

generated!(ConnectionId, "con");
generated!(AccessRuleId, "rule");
generated!(ConnectLinkId, "lnk");
generated!(RequestId, "req");

/// The unique part of a generated identifier: a UUID of version 7 (RFC 9562, section 5.7) as 32 hexadecimal digits.
pub fn generate_suffix(clock: &dyn Clock, rng: &dyn Rng) -> String {
    let mut random = [0; 10];
    rng.fill(&mut random);
    let millis = u64::try_from(clock.now().as_micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ManualClock, SeededRng, Timestamp};
    use proptest::prelude::*;

    #[test]
    fn tenant_ids_follow_the_documented_pattern() {
        for good in ["a", "9", "acme", "Acme.eu:prod_1-x", &"x".repeat(128)] {
            assert_eq!(TenantId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a\n", "a\0", &"x".repeat(129)] {
            let error = TenantId::parse(bad).unwrap_err();
            assert_eq!(error.kind, "tenant_id");
            assert!(error.to_string().contains("1 to 128"));
        }
    }

    #[test]
    fn identifiers_keep_their_case() {
        assert_ne!(TenantId::parse("Acme").unwrap(), TenantId::parse("acme").unwrap());
    }

    #[test]
    fn generated_identifiers_are_valid_and_sort_by_time() {
        let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
        let rng = SeededRng::new(1);
        let first = ConnectionId::generate(&clock, &rng);
        clock.advance(std::time::Duration::from_millis(2));
        let second = ConnectionId::generate(&clock, &rng);
        assert!(first < second);
        assert_eq!(ConnectionId::parse(first.as_str()).unwrap(), first);
    }

    proptest! {
        #[test]
        fn parsing_accepts_exactly_what_it_keeps(text in ".{0,140}") {
            if let Ok(id) = TenantId::parse(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(text.is_ascii() && text.len() <= 128 && !text.contains(char::is_whitespace));
            }
        }
    }
}
