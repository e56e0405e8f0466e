//! A configured issuer of caller tokens.

use std::path::PathBuf;
use std::str::FromStr;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use url::{Host, Url};

use crate::Role;
use crate::address::{AddressPolicy, names_loopback};

/// The name of the built-in issuer, which no other may have.
pub const BUILTIN_ISSUER_NAME: &str = "builtin";

/// The algorithms of an issuer whose configuration names none.
pub const DEFAULT_ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

const ALGORITHMS_HINT: &str = "EdDSA, ES256, ES384, RS256, RS384, RS512, PS256, PS384 or PS512";

/// Where an issuer's public keys come from: a JWK Set (RFC 7517, section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// A file, read at start and again when a token names an unknown key.
    File(PathBuf),
    /// A URL, fetched at start, every few minutes, and when a token names an unknown key.
    Url(Url),
}

/// An issuer whose tokens are accepted. Keys and claims of one issuer never count for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What principals of this issuer start with; `builtin` is taken.
    pub name: String,
    /// The exact `iss` of its tokens.
    pub iss: String,
    /// What `aud` of its tokens must contain.
    pub audience: String,
    /// The names of the accepted algorithms (RFC 7518, section 3.1; RFC 8037), never `HS*` or `none`.
    pub algorithms: Vec<String>,
    /// Its public keys.
    pub jwks: JwksSource,
    /// The claim that names the principal.
    pub principal_claim: String,
    /// The claim that names the role, a string; without it, or where a token lacks it, the role is service.
    pub role_claim: Option<String>,
    /// The roles that it may give.
    pub allowed_roles: Vec<Role>,
    /// Whether its keys may be fetched from private addresses, and there without TLS.
    pub allow_private_addresses: bool,
    /// PEM certificates that alone are trusted for fetching its keys, instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl IssuerConfig {
    /// An issuer with the defaults: [`DEFAULT_ALGORITHMS`], the principal from `sub`, the role from `tokenward_role`,
    /// services only.
    pub fn new(name: &str, iss: &str, audience: &str, jwks: JwksSource) -> Self {
        Self {
            name: name.to_owned(),
            iss: iss.to_owned(),
            audience: audience.to_owned(),
            algorithms: DEFAULT_ALGORITHMS.map(str::to_owned).to_vec(),
            jwks,
            principal_claim: "sub".to_owned(),
            role_claim: Some("tokenward_role".to_owned()),
            allowed_roles: vec![Role::Service],
            allow_private_addresses: false,
            ca_file: None,
        }
    }

    /// Every problem, one sentence each; no file is read and nothing is fetched.
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.validate_names(&mut problems);
        self.validate_algorithms(&mut problems);
        self.validate_roles(&mut problems);
        self.validate_source(&mut problems);
        problems.into_iter().map(|problem| format!("issuer {:?}: {problem}", self.name)).collect()
    }

    fn validate_names(&self, problems: &mut Vec<String>) {
        if !is_issuer_name(&self.name) {
            problems.push(
                "name must be 1 to 64 characters: a letter or digit first, then letters, digits or any of \"._-\""
                    .to_owned(),
            );
        }
        if self.name == BUILTIN_ISSUER_NAME {
            problems.push("the name is reserved for the built-in issuer: choose another".to_owned());
        }
        for (option, value) in [
            ("iss", &self.iss),
            ("audience", &self.audience),
            ("principal_claim", &self.principal_claim),
            ("role_claim", self.role_claim.as_ref().unwrap_or(&self.principal_claim)),
        ] {
            if value.trim().is_empty() {
                problems.push(format!("{option} must not be empty"));
            }
        }
    }

    fn validate_algorithms(&self, problems: &mut Vec<String>) {
        if self.algorithms.is_empty() {
            problems.push(format!("algorithms must name at least one of {ALGORITHMS_HINT}"));
        }
        for name in &self.algorithms {
            if name.starts_with("HS") {
                problems.push(format!(
                    "algorithm {name:?} is refused: whoever reads a public key could sign with it; use {ALGORITHMS_HINT}"
                ));
            } else if asymmetric(name).is_none() {
                problems.push(format!("algorithm {name:?} is not one of {ALGORITHMS_HINT}"));
            }
        }
    }

    fn validate_roles(&self, problems: &mut Vec<String>) {
        if self.allowed_roles.is_empty() {
            problems.push("allowed_roles must name at least one role".to_owned());
        } else if self.role_claim.is_none() && self.allowed_roles != [Role::Service] {
            problems.push(
                "without a role_claim every caller is a service: set role_claim, or allowed_roles = [\"service\"]"
                    .to_owned(),
            );
        }
    }

    fn validate_source(&self, problems: &mut Vec<String>) {
        let url = match &self.jwks {
            JwksSource::Url(url) => url,
            JwksSource::File(_) => {
                if self.ca_file.is_some() {
                    problems.push("ca_file is only for a JWKS URL".to_owned());
                }
                return;
            }
        };
        match url.scheme() {
            "https" => {}
            "http" if names_loopback(url) || self.allow_private_addresses => {}
            _ => problems.push(
                "the JWKS URL must be https, unless its host is this machine or allow_private_addresses is set: \
                 whoever can alter the answer can be any caller"
                    .to_owned(),
            ),
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            problems.push("the JWKS URL must not contain credentials or a fragment".to_owned());
        }
        let policy = AddressPolicy::of(url, self.allow_private_addresses);
        let permitted = match url.host() {
            Some(Host::Ipv4(ip)) => policy.permits(ip.into()),
            Some(Host::Ipv6(ip)) => policy.permits(ip.into()),
            Some(Host::Domain(_)) => true,
            None => false,
        };
        if !permitted {
            problems.push(
                "the JWKS URL has no host, or a private address: set allow_private_addresses if that is meant"
                    .to_owned(),
            );
        }
    }
}

/// The algorithm of that name, if it is an asymmetric one.
pub(crate) fn asymmetric(name: &str) -> Option<Algorithm> {
    Algorithm::from_str(name).ok().filter(|algorithm| algorithm.family() != AlgorithmFamily::Hmac)
}

// No colon: `a` with the claim `b:c` and `a:b` with the claim `c` must not be the same principal.
fn is_issuer_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> IssuerConfig {
        IssuerConfig::new(
            "corp",
            "https://id.example.com",
            "tokenward",
            JwksSource::Url(Url::parse(url).unwrap()),
        )
    }

    fn problems(change: impl FnOnce(&mut IssuerConfig)) -> String {
        let mut config = at("https://id.example.com/jwks");
        assert_eq!(config.validate(), Vec::<String>::new());
        change(&mut config);
        config.validate().join("\n")
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let found = problems(|config| {
            config.name = "a:b".to_owned();
            config.iss = " ".to_owned();
            config.audience = String::new();
            config.algorithms = vec!["HS256".to_owned(), "none".to_owned()];
            config.allowed_roles = vec![];
            config.jwks = JwksSource::Url(Url::parse("http://user:hunter2@10.0.0.1/#x").unwrap());
        });
        for expected in [
            "name must be",
            "iss must not",
            "audience must not",
            "\"HS256\" is refused",
            "\"none\" is not one of",
            "allowed_roles",
            "must be https",
            "must not contain credentials",
            "private address",
        ] {
            assert!(found.contains(expected), "{expected:?} in:\n{found}");
        }
        assert!(!found.contains("hunter2"));
    }

    #[test]
    fn the_name_of_the_built_in_issuer_is_reserved() {
        assert!(problems(|config| config.name = "builtin".to_owned()).contains("reserved"));
    }

    #[test]
    fn plain_http_is_for_this_machine_or_by_choice() {
        assert!(at("http://127.0.0.1:8080/jwks").validate().is_empty());
        assert!(at("http://localhost/jwks").validate().is_empty());
        let mut inside = at("http://keycloak.auth.svc/jwks");
        assert_eq!(inside.validate().len(), 1);
        inside.allow_private_addresses = true;
        assert!(inside.validate().is_empty());
        assert_eq!(at("ftp://id.example.com/jwks").validate().len(), 1);
    }

    #[test]
    fn roles_other_than_service_need_a_role_claim() {
        let found = problems(|config| {
            config.role_claim = None;
            config.allowed_roles = vec![Role::Admin];
        });
        assert!(found.contains("set role_claim"), "{found}");
    }

    #[test]
    fn a_ca_file_is_only_for_a_url() {
        let found = problems(|config| {
            config.jwks = JwksSource::File("jwks.json".into());
            config.ca_file = Some("ca.pem".into());
        });
        assert!(found.contains("ca_file"), "{found}");
    }
}
