//! The vendor's books: apps, accounts, consents and tokens. Every look-up is by hash or by tree, none is a scan.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::{
    config::{App, Portal, Settings},
    errors::{ApiError, OAuthError},
    family::{Family, FamilyEnd, Spend},
    rng::Rng,
};

/// An authorization code lives ten minutes.
const CODE_LIFETIME_MS: i64 = 600_000;
/// Expired access tokens are remembered for a day, so that they answer "expired" and not "unknown".
const REMEMBER_EXPIRED_MS: i64 = 86_400_000;

#[derive(Debug, Default)]
pub(crate) struct Vendor {
    pub(crate) settings: Settings,
    pub(crate) apps: HashMap<String, AppEntry>,
    pub(crate) portals: BTreeMap<u64, PortalEntry>,
    pub(crate) families: Vec<Family>,
    pub(crate) by_hub: HashMap<u64, Vec<usize>>,
    /// Refresh token → (family, position in the family).
    refresh: HashMap<Arc<str>, (usize, usize)>,
    access: HashMap<TokenHash, AccessToken>,
    access_by_age: VecDeque<(i64, TokenHash)>,
    codes: HashMap<String, Code>,
    serial: u64,
}

/// 128 bits of SHA-256: long tokens need not be kept.
type TokenHash = [u8; 16];

#[derive(Debug)]
pub(crate) struct AppEntry {
    pub(crate) app: Arc<App>,
    pub(crate) client_id: Arc<str>,
    secrets: Vec<Secret>,
}

struct Secret {
    value: String,
    /// Milliseconds since the Unix epoch; `None` = for ever.
    valid_until_ms: Option<i64>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("valid_until_ms", &self.valid_until_ms).finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct PortalEntry {
    pub(crate) portal: Portal,
    pub(crate) deleted: bool,
}

#[derive(Clone, Debug)]
struct AccessToken {
    owner: Owner,
    serial: u64,
    expires_at_ms: Option<i64>,
}

#[derive(Clone, Debug)]
enum Owner {
    Family(usize),
    Static { hub_id: u64, scopes: Arc<[String]> },
}

/// What a person agreed to, waiting to be exchanged.
pub(crate) struct Code {
    pub(crate) client_id: Arc<str>,
    pub(crate) redirect_uri: String,
    pub(crate) hub_id: u64,
    pub(crate) scopes: Arc<[String]>,
    pub(crate) challenge: Option<Challenge>,
    pub(crate) expires_at_ms: i64,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Code").field("hub_id", &self.hub_id).finish_non_exhaustive()
    }
}

/// RFC 7636 section 4.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    S256(String),
    Plain(String),
}

impl Challenge {
    fn matches(&self, verifier: &str) -> bool {
        match self {
            Self::Plain(expected) => same(expected, verifier),
            Self::S256(expected) => same(expected, &URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))),
        }
    }
}

/// Tokens just given out.
pub(crate) struct Issued {
    pub(crate) family: usize,
    pub(crate) access_token: String,
    pub(crate) refresh_token: Arc<str>,
    pub(crate) expires_in: u32,
}

/// What a living bearer token may do.
pub(crate) struct Bearer {
    pub(crate) hub_id: u64,
    pub(crate) client_id: Option<Arc<str>>,
    pub(crate) scopes: Arc<[String]>,
}

/// What introspection tells of a living token.
pub(crate) struct LiveToken {
    pub(crate) family: usize,
    /// Seconds left; refresh tokens have none.
    pub(crate) expires_in: Option<i64>,
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

fn hash(token: &str) -> TokenHash {
    let mut out = [0; 16];
    out.copy_from_slice(&Sha256::digest(token)[..16]);
    out
}

/// Sixteen hex digits by which a token can be recognised without being shown.
pub(crate) fn fingerprint(token: &str) -> String {
    hash(token)[..8].iter().fold(String::with_capacity(16), |mut out, byte| {
        out.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        out.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        out
    })
}

impl Vendor {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    pub(crate) fn add_app(&mut self, app: App) {
        let entry = AppEntry {
            client_id: app.client_id.as_str().into(),
            secrets: vec![Secret { value: app.client_secret.clone(), valid_until_ms: None }],
            app: Arc::new(app),
        };
        self.apps.insert(entry.app.client_id.clone(), entry);
    }

    /// Replaces a client secret; the ones before stay valid until `old_until_ms` (`None`: dead at once).
    pub(crate) fn set_secret(&mut self, client_id: &str, secret: String, old_until_ms: Option<i64>) -> bool {
        let Some(entry) = self.apps.get_mut(client_id) else { return false };
        match old_until_ms {
            None => entry.secrets.clear(),
            Some(until) => entry
                .secrets
                .iter_mut()
                .for_each(|s| s.valid_until_ms = Some(s.valid_until_ms.map_or(until, |t| t.min(until)))),
        }
        entry.secrets.push(Secret { value: secret, valid_until_ms: None });
        true
    }

    pub(crate) fn add_portal(&mut self, portal: Portal) {
        self.portals.insert(portal.hub_id, PortalEntry { portal, deleted: false });
    }

    pub(crate) fn hub_exists(&self, hub_id: u64) -> bool {
        self.portals.get(&hub_id).is_some_and(|p| !p.deleted)
    }

    pub(crate) fn authenticate(
        &self,
        client_id: &str,
        secret: &str,
        now_ms: i64,
    ) -> Result<&AppEntry, OAuthError> {
        let entry = self.apps.get(client_id).ok_or(OAuthError::ClientId)?;
        let known = entry
            .secrets
            .iter()
            .any(|s| s.valid_until_ms.is_none_or(|until| now_ms < until) && same(&s.value, secret));
        if known { Ok(entry) } else { Err(OAuthError::ClientSecret) }
    }

    pub(crate) fn add_code(&mut self, code: Code, rng: &Rng) -> String {
        let text = rng.uuid();
        self.codes.insert(text.clone(), code);
        text
    }

    pub(crate) fn code_expiry(now_ms: i64) -> i64 {
        now_ms.saturating_add(CODE_LIFETIME_MS)
    }

    pub(crate) fn redeem_code(
        &mut self,
        (client_id, code, redirect_uri, verifier): (&str, &str, &str, Option<&str>),
        now_ms: i64,
        rng: &Rng,
    ) -> Result<Issued, OAuthError> {
        let found = self
            .codes
            .get(code)
            .filter(|c| *c.client_id == *client_id && now_ms < c.expires_at_ms)
            .ok_or(OAuthError::AuthCode)?;
        if found.redirect_uri != redirect_uri {
            return Err(OAuthError::RedirectUri);
        }
        // From here on the code is spent, whatever the verifier says.
        let Some(code) = self.codes.remove(code) else { return Err(OAuthError::AuthCode) };
        if code.challenge.as_ref().is_some_and(|c| !verifier.is_some_and(|v| c.matches(v))) {
            return Err(OAuthError::CodeVerifier);
        }
        if !self.hub_exists(code.hub_id) {
            return Err(OAuthError::Hub);
        }
        let family = self.add_family(code.client_id, code.hub_id, code.scopes);
        Ok(self.issue(family, None, now_ms, rng))
    }

    pub(crate) fn refresh(
        &mut self,
        client_id: &str,
        token: &str,
        now_ms: i64,
        rng: &Rng,
    ) -> Result<Issued, (OAuthError, bool)> {
        let refused = (OAuthError::RefreshToken, false);
        let &(family, position) = self.refresh.get(token).ok_or(refused)?;
        if *self.families[family].client_id != *client_id {
            return Err(refused);
        }
        if !self.hub_exists(self.families[family].hub_id) {
            return Err((OAuthError::Hub, false));
        }
        match self.families[family].spend(position, self.settings.rotation, now_ms) {
            Ok(Spend::Same) => Ok(self.issue(family, Some(position), now_ms, rng)),
            Ok(Spend::Rotated) => Ok(self.issue(family, None, now_ms, rng)),
            Err(e) => Err((OAuthError::RefreshToken, e.reuse_detected)),
        }
    }

    pub(crate) fn add_family(&mut self, client_id: Arc<str>, hub_id: u64, scopes: Arc<[String]>) -> usize {
        self.families.push(Family {
            client_id,
            hub_id,
            user_id: hub_id % 1_000_000 + 40_000_000,
            scopes,
            ended: None,
            reuse_detected: 0,
            grace_replays: 0,
            tokens: Vec::with_capacity(1),
            access_valid_from: 0,
        });
        let family = self.families.len() - 1;
        self.by_hub.entry(hub_id).or_default().push(family);
        family
    }

    /// A fresh access token, with the refresh token at `position` or a new one.
    pub(crate) fn issue(&mut self, family: usize, position: Option<usize>, now_ms: i64, rng: &Rng) -> Issued {
        let refresh_token = match position {
            Some(position) => self.families[family].tokens[position].value.clone(),
            None => self.add_refresh_token(family, rng),
        };
        let access_token = self.issue_access(family, now_ms, rng);
        Issued { access_token, family, refresh_token, expires_in: self.settings.token_lifetime_secs }
    }

    pub(crate) fn add_refresh_token(&mut self, family: usize, rng: &Rng) -> Arc<str> {
        let value: Arc<str> = rng.text("na1-", 48).into();
        let position = self.families[family].push(value.clone());
        self.refresh.insert(value.clone(), (family, position));
        value
    }

    pub(crate) fn issue_access(&mut self, family: usize, now_ms: i64, rng: &Rng) -> String {
        self.forget_long_expired(now_ms);
        let token = rng.text("CN", self.settings.access_token_length);
        let expires_at_ms = now_ms.saturating_add(i64::from(self.settings.token_lifetime_secs) * 1000);
        let key = hash(&token);
        self.serial += 1;
        let entry = AccessToken {
            owner: Owner::Family(family),
            serial: self.serial,
            expires_at_ms: Some(expires_at_ms),
        };
        self.access.insert(key, entry);
        self.access_by_age.push_back((expires_at_ms, key));
        token
    }

    fn forget_long_expired(&mut self, now_ms: i64) {
        while let Some(&(expires_at_ms, key)) = self.access_by_age.front() {
            if expires_at_ms.saturating_add(REMEMBER_EXPIRED_MS) > now_ms {
                break;
            }
            self.access_by_age.pop_front();
            self.access.remove(&key);
        }
    }

    pub(crate) fn add_static(&mut self, hub_id: u64, scopes: Vec<String>, rng: &Rng) -> String {
        let token = format!("pat-na1-{}", rng.uuid());
        let owner = Owner::Static { hub_id, scopes: scopes.into() };
        self.access.insert(hash(&token), AccessToken { owner, serial: 0, expires_at_ms: None });
        token
    }

    /// What the CRM API makes of a bearer token.
    pub(crate) fn bearer(&self, token: &str, now_ms: i64) -> Result<Bearer, ApiError> {
        let entry = self.access.get(&hash(token)).ok_or(ApiError::InvalidAuthentication)?;
        let bearer = match &entry.owner {
            Owner::Static { hub_id, scopes } => {
                Bearer { hub_id: *hub_id, client_id: None, scopes: scopes.clone() }
            }
            Owner::Family(family) => {
                let family = &self.families[*family];
                if family.ended == Some(FamilyEnd::Uninstalled) || entry.serial < family.access_valid_from {
                    return Err(ApiError::InvalidAuthentication);
                }
                Bearer {
                    hub_id: family.hub_id,
                    client_id: Some(family.client_id.clone()),
                    scopes: family.scopes.clone(),
                }
            }
        };
        if !self.hub_exists(bearer.hub_id) {
            return Err(ApiError::InvalidAuthentication);
        }
        match entry.expires_at_ms {
            Some(at) if at <= now_ms => {
                Err(ApiError::ExpiredAuthentication { seconds_ago: (now_ms - at) / 1000 })
            }
            _ => Ok(bearer),
        }
    }

    /// The family that a refresh or access token belongs to, whether it lives or not.
    pub(crate) fn family_of(&self, token: &str) -> Option<usize> {
        if let Some(&(family, _)) = self.refresh.get(token) {
            return Some(family);
        }
        match self.access.get(&hash(token))?.owner {
            Owner::Family(family) => Some(family),
            Owner::Static { .. } => None,
        }
    }

    /// The family and remaining life of a living access token.
    pub(crate) fn live_access(&self, token: &str, now_ms: i64) -> Option<LiveToken> {
        self.bearer(token, now_ms).ok()?;
        let entry = self.access.get(&hash(token))?;
        let Owner::Family(family) = entry.owner else { return None };
        Some(LiveToken { family, expires_in: entry.expires_at_ms.map(|at| (at - now_ms) / 1000) })
    }

    /// The family of a living refresh token.
    pub(crate) fn live_refresh(&self, token: &str) -> Option<LiveToken> {
        let &(family, position) = self.refresh.get(token)?;
        let alive = self.families[family].is_live(position) && self.hub_exists(self.families[family].hub_id);
        alive.then_some(LiveToken { family, expires_in: None })
    }

    /// Ends the family of a refresh token; `client_id` restricts it to that client's tokens.
    pub(crate) fn revoke(&mut self, token: &str, client_id: Option<&str>) -> bool {
        let Some(&(family, _)) = self.refresh.get(token) else { return false };
        let family = &mut self.families[family];
        if client_id.is_some_and(|id| *family.client_id != *id) {
            return false;
        }
        family.ended.get_or_insert(FamilyEnd::Revoked);
        true
    }

    /// Ends every consent of an app (or of all apps) in an account; returns how many.
    pub(crate) fn uninstall(&mut self, hub_id: u64, client_id: Option<&str>) -> usize {
        let ids = self.by_hub.get(&hub_id).map_or(&[][..], Vec::as_slice);
        let mut ended = 0;
        for &id in ids {
            let family = &mut self.families[id];
            if client_id.is_none_or(|c| *family.client_id == *c) {
                family.ended = Some(FamilyEnd::Uninstalled);
                ended += 1;
            }
        }
        ended
    }

    /// Kills the access tokens of an account that were issued so far; refresh tokens live on.
    pub(crate) fn invalidate_access(&mut self, hub_id: u64) -> usize {
        let ids = self.by_hub.get(&hub_id).map_or(&[][..], Vec::as_slice);
        for &id in ids {
            self.families[id].access_valid_from = self.serial + 1;
        }
        ids.len()
    }
}
