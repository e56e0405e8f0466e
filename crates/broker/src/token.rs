//! What is asked for and what is answered.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokenward_types::{
    AccountId, ConnectionId, ExposeSecret, Fingerprint, Principal, ProviderName, Scopes, SecretString,
    Timestamp,
};
use zeroize::Zeroizing;

/// Asks for a token. Texts are as the caller sent them: what is found in memory needs no validation.
#[derive(Clone, Debug)]
pub struct TokenRequest<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The tenant.
    pub tenant: &'a str,
    /// The provider; empty for any.
    pub provider: &'a str,
    /// The scopes that are needed; empty for all that rules and connection share.
    pub scopes: &'a [String],
    /// How long the token must still live.
    pub min_ttl: Option<Duration>,
    /// The connection; empty for any.
    pub connection: &'a str,
    /// The account; empty for any.
    pub account: &'a str,
    /// How long the caller waits for the answer.
    pub patience: Option<Duration>,
}

/// An access token in memory. There may be a hundred thousand of these, and the token is most of each: what is written in
/// base64url (RFC 4648, section 5), as nearly all tokens are, is kept as the bytes that it stands for.
pub struct LiveToken {
    secret: Zeroizing<Box<[u8]>>,
    form: Form,
    /// Who got it first; 0 for nobody yet.
    told: AtomicU32,
    /// When it was requested.
    pub issued_at: Timestamp,
    /// When it expires; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// The scopes that it carries.
    pub scopes: Scopes,
    /// The connection that it belongs to.
    pub connection: ConnectionId,
    /// The account that it is for.
    pub account: AccountId,
    /// The provider that it is for.
    pub provider: ProviderName,
    /// Names it without revealing it.
    pub fingerprint: Fingerprint,
    /// Whether the provider did not say how long it lives.
    pub lifetime_assumed: bool,
}

/// How a token is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As it is.
    Text,
    /// Decoded, but for so many characters at the end that make no group of four.
    Decoded { rest: u8 },
}

/// Bytes that are encoded at a time; they make 256 characters.
const CHUNK: usize = 192;

fn keep(token: &str) -> (Zeroizing<Box<[u8]>>, Form) {
    let (groups, rest) = token.as_bytes().split_at(token.len() / 4 * 4);
    let mut kept = Zeroizing::new(vec![0; groups.len() / 4 * 3]);
    match URL_SAFE_NO_PAD.decode_slice(groups, &mut kept) {
        Ok(length) if length == kept.len() && rest.is_ascii() => {
            let whole: Vec<u8> = [&kept, rest].concat();
            let rest = u8::try_from(rest.len()).unwrap_or(0);
            (Zeroizing::new(whole.into_boxed_slice()), Form::Decoded { rest })
        }
        _ => (Zeroizing::new(token.as_bytes().into()), Form::Text),
    }
}

/// Where a token comes from and what it is good for. Not a part of [`LiveToken`] as it stands: laid out one by one, the small
/// fields share a word, and each token takes 16 bytes less.
pub struct TokenFacts {
    /// When it was requested.
    pub issued_at: Timestamp,
    /// When it expires; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// The scopes that it carries.
    pub scopes: Scopes,
    /// The connection that it belongs to.
    pub connection: ConnectionId,
    /// The account that it is for.
    pub account: AccountId,
    /// The provider that it is for.
    pub provider: ProviderName,
    /// Whether the provider did not say how long it lives.
    pub lifetime_assumed: bool,
}

impl LiveToken {
    /// How it is presented (RFC 6749, section 7.1).
    pub const TOKEN_TYPE: &'static str = "Bearer";

    /// A token to be kept.
    pub fn new(access_token: &SecretString, facts: TokenFacts) -> Self {
        let (secret, form) = keep(access_token.expose_secret());
        let TokenFacts { issued_at, expires_at, scopes, connection, account, provider, lifetime_assumed } =
            facts;
        Self {
            secret,
            form,
            told: AtomicU32::new(0),
            issued_at,
            expires_at,
            scopes,
            connection,
            account,
            provider,
            fingerprint: Fingerprint::of(access_token),
            lifetime_assumed,
        }
    }

    /// The token.
    pub fn access_token(&self) -> SecretString {
        let mut text = Zeroizing::new(Vec::with_capacity(self.access_token_length()));
        self.write_access_token(|part| text.extend_from_slice(part));
        // It was a text before.
        SecretString::from(std::str::from_utf8(&text).unwrap_or_default())
    }

    /// How many bytes the token has.
    pub fn access_token_length(&self) -> usize {
        match self.form {
            Form::Text => self.secret.len(),
            Form::Decoded { rest } => (self.secret.len() - usize::from(rest)) / 3 * 4 + usize::from(rest),
        }
    }

    /// Gives the token to `put`, in order and in parts.
    pub fn write_access_token(&self, mut put: impl FnMut(&[u8])) {
        let Form::Decoded { rest } = self.form else { return put(&self.secret) };
        let (groups, rest) = self.secret.split_at(self.secret.len() - usize::from(rest));
        let mut text = [0; CHUNK / 3 * 4];
        for chunk in groups.chunks(CHUNK) {
            // The text has room for every chunk.
            let length = URL_SAFE_NO_PAD.encode_slice(chunk, &mut text).unwrap_or(0);
            put(&text[..length]);
        }
        put(rest);
    }

    /// Notes that it was given to a caller, who is named by a number other than 0. `Some` tells whether that was the first
    /// time; `None` when it was given to another one first, and this memory, which is for one, cannot tell.
    pub fn is_first_told(&self, caller: u32) -> Option<bool> {
        match self.told.compare_exchange(0, caller, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Some(true),
            Err(first) => (first == caller).then_some(false),
        }
    }

    /// How long it lives from `now` on; `None` for ever.
    pub fn ttl(&self, now: Timestamp) -> Option<Duration> {
        self.expires_at.map(|at| at.until(now))
    }

    /// How long it lives in all; `None` for ever.
    pub fn life(&self) -> Option<Duration> {
        self.expires_at.map(|at| at.since(self.issued_at))
    }
}

impl fmt::Debug for LiveToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveToken")
            .field("connection", &self.connection)
            .field("fingerprint", &self.fingerprint)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarningReason {
    /// The token lives for less than `min_ttl` and is too young to be refreshed.
    MinTtlNotMet,
    /// Refreshing fails at the moment.
    RefreshFailing,
    /// The provider called the grant dead once.
    GrantSuspect,
    /// The provider did not say how long the token lives.
    LifetimeAssumed,
}

/// Something that is not as it should be although the token works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub reason: WarningReason,
    /// The same for people.
    pub message: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token.
    pub live: std::sync::Arc<LiveToken>,
    /// How long it lives from now on; `None` for ever.
    pub ttl: Option<Duration>,
    /// What is not as it should be.
    pub warnings: Vec<Warning>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(text: &str) -> LiveToken {
        let facts = TokenFacts {
            issued_at: Timestamp::from_secs(1),
            expires_at: None,
            scopes: Scopes::default(),
            connection: ConnectionId::parse("con_1").unwrap(),
            account: AccountId::parse("1").unwrap(),
            provider: ProviderName::parse("hubspot").unwrap(),
            lifetime_assumed: false,
        };
        LiveToken::new(&SecretString::from(text), facts)
    }

    fn comes_back(text: &str) {
        let token = token(text);
        assert_eq!(token.access_token().expose_secret(), text);
        assert_eq!(token.access_token_length(), text.len());
    }

    #[test]
    fn base64url_takes_three_quarters() {
        assert_eq!(token(&"aZ09-_xy".repeat(64)).secret.len(), 384);
        assert_eq!(token(&"aZ09-_xy.".repeat(64)).secret.len(), 576, "a dot is not of that alphabet");
    }

    #[test]
    fn debug_shows_no_part_of_the_token() {
        let shown = format!("{:?} {0:#?}", token("aZ09-_xyz.secret"));
        assert!(!shown.contains("aZ09") && !shown.contains("secret: "), "{shown}");
    }

    #[test]
    fn the_first_caller_is_told_apart() {
        let token = token("abc");
        assert_eq!(token.is_first_told(7), Some(true));
        assert_eq!(token.is_first_told(7), Some(false));
        assert_eq!(token.is_first_told(8), None);
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "\\PC{0,40}") {
            comes_back(&text);
        }

        #[test]
        fn every_base64url_text_comes_back(text in "[A-Za-z0-9_-]{0,600}") {
            comes_back(&text);
        }
    }
}
