//! A vendor that rotates refresh tokens, in the three ways that there are.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokenward_provider::{
    AuthorizeRequest, ClientCredentials, ErrorClass, ExpiresIn, Introspection, Provider, ProviderError,
    ProviderInfo, Rotation, TokenAnswer, TokenHint,
};
use tokenward_types::{Clock, ExposeSecret, Scopes, SecretString};
use url::Url;

use crate::gate::{Gate, Pass};

/// What using a refresh token does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A spent token answers within its grace, and all that came of it live.
    Sibling,
    /// A spent token answers within its grace, and the newest that came of it ends the others.
    Supersede,
    /// A spent token that comes again ends the grant.
    Strict,
}

/// How long a spent token answers.
pub(crate) const GRACE: Duration = Duration::from_hours(1);

#[derive(Default)]
struct Grants {
    live: BTreeSet<u64>,
    /// Spent, and still answering.
    grace: BTreeSet<u64>,
    is_dead: bool,
    newest: u64,
    /// The first token of the newest consent.
    consented: u64,
}

/// The vendor's own truth about one grant.
pub(crate) struct Vendor {
    pub(crate) mode: Mode,
    grants: Mutex<Grants>,
    /// Tokens of calls that it has not got to yet, and whose callers are gone.
    late: Mutex<Vec<SecretString>>,
}

impl Vendor {
    pub(crate) fn new(mode: Mode) -> Arc<Self> {
        Arc::new(Self { mode, grants: Mutex::default(), late: Mutex::default() })
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().expect("nothing panics while it holds the lock")
    }

    fn late(&self) -> MutexGuard<'_, Vec<SecretString>> {
        self.late.lock().expect("nothing panics while it holds the lock")
    }

    /// Whether there are calls that it has not got to yet.
    pub(crate) fn is_behind(&self) -> bool {
        !self.late().is_empty()
    }

    /// What was spent answers no more.
    pub(crate) fn end_grace(&self) {
        if self.mode != Mode::Strict {
            self.grants().grace.clear();
        }
    }

    /// Gets to a call whose caller is gone.
    pub(crate) fn catch_up(&self) {
        let token = self.late().pop();
        if let Some(token) = token {
            self.spend(token.expose_secret());
        }
    }

    /// The customer consents: a new family, and the one before is gone.
    pub(crate) fn consent(&self) -> String {
        let mut grants = self.grants();
        let newest = grants.newest + 1;
        *grants = Grants { live: [newest].into(), newest, consented: newest, ..Grants::default() };
        name(newest)
    }

    /// Whether a token lives and came of the newest consent.
    pub(crate) fn lives(&self, token: &str) -> bool {
        let grants = self.grants();
        number(token).is_some_and(|n| !grants.is_dead && grants.live.contains(&n) && n >= grants.consented)
    }

    /// Whether a token came of the newest consent.
    pub(crate) fn is_of_newest_consent(&self, token: &str) -> bool {
        number(token).is_some_and(|n| n >= self.grants().consented)
    }

    /// Whether a spent token came again in a way that ended the grant.
    pub(crate) fn saw_reuse(&self) -> bool {
        self.grants().is_dead
    }

    pub(crate) fn spend(&self, token: &str) -> Option<String> {
        let mut grants = self.grants();
        let token = number(token)?;
        if grants.is_dead {
            return None;
        }
        let is_live = grants.live.contains(&token);
        let is_spent = grants.grace.contains(&token);
        if self.mode == Mode::Strict && is_spent && !is_live {
            grants.is_dead = true;
            return None;
        }
        if !is_live && !is_spent {
            return None;
        }
        grants.newest += 1;
        let newest = grants.newest;
        if is_live {
            grants.live.remove(&token);
            grants.grace.insert(token);
        } else if self.mode == Mode::Supersede {
            // Those that it ends are no longer accepted at all.
            grants.live.clear();
        }
        grants.live.insert(newest);
        Some(name(newest))
    }
}

fn name(number: u64) -> String {
    format!("refresh-{number}")
}

fn number(token: &str) -> Option<u64> {
    token.strip_prefix("refresh-")?.parse().ok()
}

/// One broker's way to the vendor.
pub(crate) struct Line {
    pub(crate) vendor: Arc<Vendor>,
    pub(crate) gate: Gate,
    pub(crate) actor: u64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) info: ProviderInfo,
}

pub(crate) fn info(mode: Mode) -> ProviderInfo {
    ProviderInfo {
        name: "vendor".parse().unwrap(),
        kind: "vendor",
        display_name: "Vendor".into(),
        base_scopes: Scopes::default(),
        can_narrow: false,
        pkce: false,
        introspection: mode == Mode::Strict,
        revocation: false,
        rotation: match mode {
            Mode::Strict => Rotation::Strict,
            _ => Rotation::Grace(GRACE),
        },
        default_token_lifetime: Duration::from_mins(30),
        call_rate: None,
        refresh_token_idle_lifetime: None,
        issuer: None,
        static_tokens: false,
    }
}

fn failed(class: ErrorClass) -> ProviderError {
    ProviderError::new(class, "as the run decided")
}

#[async_trait]
impl Provider for Line {
    fn info(&self) -> &ProviderInfo {
        &self.info
    }

    fn authorize_url(&self, _: &AuthorizeRequest<'_>) -> Url {
        Url::parse("https://vendor.example/authorize").unwrap()
    }

    async fn exchange_code(
        &self,
        _: &ClientCredentials,
        _: &SecretString,
        _: &str,
        _: Option<&SecretString>,
    ) -> Result<TokenAnswer, ProviderError> {
        Err(failed(ErrorClass::ConnectAttempt))
    }

    async fn refresh(
        &self,
        _: &ClientCredentials,
        token: &SecretString,
    ) -> Result<TokenAnswer, ProviderError> {
        let requested_at = self.clock.now();
        match self.gate.pass(self.actor, "send").await {
            Pass::Go => {}
            Pass::Late => {
                self.vendor.late().push(token.clone());
                return Err(failed(ErrorClass::OutcomeUnknown));
            }
            Pass::Away | Pass::Lost => return Err(failed(ErrorClass::NotSent)),
        }
        let brought = self.vendor.spend(token.expose_secret());
        if self.gate.pass(self.actor, "reply").await != Pass::Go {
            return Err(failed(ErrorClass::OutcomeUnknown));
        }
        let refresh_token = brought.ok_or_else(|| failed(ErrorClass::GrantDead))?;
        Ok(TokenAnswer {
            access_token: SecretString::from(format!("access of {refresh_token}")),
            refresh_token: Some(SecretString::from(refresh_token)),
            expires_in: ExpiresIn::Given(Duration::from_mins(30)),
            scopes: None,
            account: None,
            account_name: None,
            requested_at,
        })
    }

    async fn introspect(
        &self,
        _: &ClientCredentials,
        token: &SecretString,
        _: TokenHint,
    ) -> Result<Introspection, ProviderError> {
        if self.gate.pass(self.actor, "introspect").await != Pass::Go {
            return Err(failed(ErrorClass::OutcomeUnknown));
        }
        let active = self.vendor.lives(token.expose_secret());
        Ok(Introspection { active, account: None, account_name: None, scopes: None, expires_in: None })
    }

    async fn revoke(&self, _: &ClientCredentials, _: &SecretString) -> Result<(), ProviderError> {
        Err(failed(ErrorClass::NotSent))
    }

    async fn check_credentials(&self, _: &ClientCredentials) -> Option<bool> {
        None
    }
}
