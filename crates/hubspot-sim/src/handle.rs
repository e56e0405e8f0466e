//! The handle for inspection and control: the control API over HTTP is a thin layer on it.

use std::{fmt, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::{
    SimError,
    clock::SimClock,
    config::{App, Portal, Settings, SettingsPatch, SimConfig},
    family::{Family, FamilyEnd, RefreshTokenState},
    faults::{ActiveFault, Fault, Faults},
    log::{Journal, LogPage, Stats},
    rng::Rng,
    vendor::{Vendor, fingerprint},
};

/// How long old client secrets stay valid beside a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// Not at all.
    None,
    /// So many seconds.
    Secs(u64),
}

/// An order for consents that nobody has to click for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrantRequest {
    /// The app that is installed.
    pub client_id: String,
    /// The accounts that install it; those that do not exist are created.
    pub hub_ids: Vec<u64>,
    /// This many further accounts, numbered from `first_hub_id`.
    pub count: u64,
    /// Number of the first of `count` accounts; 1,000,000 when left out.
    pub first_hub_id: Option<u64>,
    /// Scopes granted; the app's required ones when left out.
    pub scopes: Option<Vec<String>>,
    /// Leave access tokens out: only refresh tokens are made.
    pub refresh_tokens_only: bool,
}

/// A consent made by [`SimHandle::create_grants`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedGrant {
    /// The account.
    pub hub_id: u64,
    /// Its refresh token.
    pub refresh_token: String,
    /// Its first access token.
    pub access_token: Option<String>,
    /// Life of the access token in seconds.
    pub expires_in: u32,
}

impl fmt::Debug for CreatedGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedGrant").field("hub_id", &self.hub_id).finish_non_exhaustive()
    }
}

/// A refresh token and where it stands.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefreshTokenView {
    /// The token itself: this is a test tool.
    pub token: String,
    /// As in the log.
    pub fingerprint: String,
    /// Where it stands in its family; says nothing about the family or the account having ended.
    #[serde(flatten)]
    pub state: RefreshTokenState,
}

impl fmt::Debug for RefreshTokenView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshTokenView")
            .field("fingerprint", &self.fingerprint)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// One consent and its refresh tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyView {
    /// As in the log.
    pub family: u64,
    /// The app.
    pub client_id: String,
    /// The account.
    pub hub_id: u64,
    /// Scopes that were granted.
    pub scopes: Vec<String>,
    /// Whether any of its refresh tokens answers.
    pub alive: bool,
    /// Why it ended.
    pub ended: Option<FamilyEnd>,
    /// Spent tokens that came again where that is an alarm.
    pub reuse_detected: u64,
    /// Spent tokens that came again within their grace window.
    pub grace_replays: u64,
    /// Refresh tokens, oldest first.
    pub refresh_tokens: Vec<RefreshTokenView>,
}

impl FamilyView {
    /// Tokens that live: none once the family has ended.
    pub fn live(&self) -> impl Iterator<Item = &RefreshTokenView> {
        self.refresh_tokens.iter().filter(|t| self.alive && t.state == RefreshTokenState::Live)
    }
}

/// Which living refresh tokens to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenFilter {
    /// Of this app only.
    pub client_id: Option<String>,
    /// Of this account only.
    pub hub_id: Option<u64>,
}

pub(crate) struct Inner {
    pub(crate) vendor: Mutex<Vendor>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) journal: Mutex<Journal>,
    pub(crate) clock: SimClock,
    pub(crate) rng: Rng,
}

/// A cheap, shared handle to a stand-in's state.
#[derive(Clone)]
pub struct SimHandle(pub(crate) Arc<Inner>);

impl fmt::Debug for SimHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimHandle")
    }
}

impl SimHandle {
    pub(crate) fn new(config: SimConfig) -> Result<Self, SimError> {
        let handle = Self(Arc::new(Inner {
            vendor: Mutex::new(Vendor::new(config.settings)),
            faults: Mutex::new(Faults::default()),
            journal: Mutex::new(Journal::new(config.log_capacity)),
            clock: SimClock::new(config.clock),
            rng: Rng::new(config.seed)?,
        }));
        for portal in config.portals {
            handle.add_portal(portal);
        }
        for app in config.apps {
            handle.add_app(app)?;
        }
        Ok(handle)
    }

    pub(crate) fn vendor(&self) -> MutexGuard<'_, Vendor> {
        self.0.vendor.lock()
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.0.journal.lock()
    }

    pub(crate) fn rng(&self) -> &Rng {
        &self.0.rng
    }

    pub(crate) fn note_delivery(&self, seq: u64, server_us: u64, delivered: bool) {
        if let Some(entry) = self.journal().entry(seq) {
            entry.server_us = server_us;
            entry.delivered = delivered;
        }
    }

    /// The stand-in's time in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        self.0.clock.now_ms()
    }

    /// Lets so many seconds pass at once.
    pub fn advance_secs(&self, secs: i64) {
        self.0.clock.advance_ms(secs.saturating_mul(1000));
    }

    /// Behaviour in force.
    pub fn settings(&self) -> Settings {
        self.vendor().settings.clone()
    }

    /// Changes behaviour; returns what is in force now.
    pub fn change_settings(&self, patch: SettingsPatch) -> Settings {
        let mut vendor = self.vendor();
        patch.apply(&mut vendor.settings);
        vendor.settings.clone()
    }

    /// Registers an app, or replaces the one with the same client id.
    pub fn add_app(&self, app: App) -> Result<(), SimError> {
        if let Some(bad) = app.redirect_uris.iter().find(|uri| !redirect_uri_is_allowed(uri)) {
            return Err(SimError::RedirectUri(bad.clone()));
        }
        self.vendor().add_app(app);
        Ok(())
    }

    /// Gives an app a new client secret.
    pub fn set_client_secret(&self, client_id: &str, secret: &str, overlap: Overlap) -> Result<(), SimError> {
        let until = match overlap {
            Overlap::None => None,
            Overlap::Secs(secs) => {
                let ms = i64::try_from(secs.saturating_mul(1000)).unwrap_or(i64::MAX);
                Some(self.now_ms().saturating_add(ms))
            }
        };
        if self.vendor().set_secret(client_id, secret.to_owned(), until) {
            Ok(())
        } else {
            Err(SimError::UnknownApp(client_id.to_owned()))
        }
    }

    /// Creates an account, or brings a deleted one back.
    pub fn add_portal(&self, portal: Portal) {
        self.vendor().add_portal(portal);
    }

    /// Deletes an account: its refreshes answer `BAD_HUB`.
    pub fn delete_portal(&self, hub_id: u64) -> Result<(), SimError> {
        match self.vendor().portals.get_mut(&hub_id) {
            Some(portal) => {
                portal.deleted = true;
                Ok(())
            }
            None => Err(SimError::UnknownPortal(hub_id)),
        }
    }

    /// Uninstalls an app (all apps when `None`) from an account; returns how many consents ended.
    pub fn uninstall(&self, hub_id: u64, client_id: Option<&str>) -> Result<usize, SimError> {
        let mut vendor = self.vendor();
        if !vendor.portals.contains_key(&hub_id) {
            return Err(SimError::UnknownPortal(hub_id));
        }
        Ok(vendor.uninstall(hub_id, client_id))
    }

    /// Kills the access tokens issued so far to an account; its refresh tokens live on.
    pub fn invalidate_access_tokens(&self, hub_id: u64) -> Result<(), SimError> {
        let mut vendor = self.vendor();
        if !vendor.portals.contains_key(&hub_id) {
            return Err(SimError::UnknownPortal(hub_id));
        }
        vendor.invalidate_access(hub_id);
        Ok(())
    }

    /// Installs an app in many accounts at once.
    pub fn create_grants(&self, request: &GrantRequest) -> Result<Vec<CreatedGrant>, SimError> {
        let now_ms = self.now_ms();
        let mut vendor = self.vendor();
        let entry = vendor
            .apps
            .get(&request.client_id)
            .ok_or_else(|| SimError::UnknownApp(request.client_id.clone()))?;
        let client_id = entry.client_id.clone();
        let scopes: Arc<[String]> =
            request.scopes.clone().unwrap_or_else(|| entry.app.required_scopes.clone()).into();
        let first = request.first_hub_id.unwrap_or(1_000_000);
        let end = first
            .checked_add(request.count)
            .filter(|_| request.count <= 10_000_000)
            .ok_or_else(|| SimError::Invalid("count is too large".into()))?;
        let mut created = Vec::with_capacity(request.hub_ids.len());
        for hub_id in request.hub_ids.iter().copied().chain(first..end) {
            if !vendor.portals.contains_key(&hub_id) {
                let domain = format!("hub-{hub_id}.example");
                vendor.add_portal(Portal::new(hub_id, &domain, &format!("admin@{domain}")));
            }
            let family = vendor.add_family(client_id.clone(), hub_id, scopes.clone());
            let refresh_token = vendor.add_refresh_token(family, &self.0.rng).to_string();
            let access_token =
                (!request.refresh_tokens_only).then(|| vendor.issue_access(family, now_ms, &self.0.rng));
            created.push(CreatedGrant {
                hub_id,
                refresh_token,
                access_token,
                expires_in: vendor.settings.token_lifetime_secs,
            });
        }
        Ok(created)
    }

    /// A private-app token: a bearer token of one account that does not expire.
    pub fn add_static_token(&self, hub_id: u64, scopes: Vec<String>) -> Result<String, SimError> {
        let mut vendor = self.vendor();
        if !vendor.hub_exists(hub_id) {
            return Err(SimError::UnknownPortal(hub_id));
        }
        Ok(vendor.add_static(hub_id, scopes, &self.0.rng))
    }

    /// Orders a fault; returns its id.
    pub fn add_fault(&self, fault: Fault) -> u64 {
        self.0.faults.lock().add(fault)
    }

    /// Faults in force, used-up ones included.
    pub fn faults(&self) -> Vec<ActiveFault> {
        self.0.faults.lock().active.clone()
    }

    /// Takes one fault back; false when there is none with this id.
    pub fn remove_fault(&self, id: u64) -> bool {
        let mut faults = self.0.faults.lock();
        let before = faults.active.len();
        faults.active.retain(|f| f.id != id);
        faults.active.len() < before
    }

    /// Takes all faults back.
    pub fn clear_faults(&self) {
        self.0.faults.lock().active.clear();
    }

    /// Log entries after the cursor `since`, oldest first; without a cursor the newest `limit`.
    pub fn log(&self, since: Option<u64>, limit: usize) -> LogPage {
        self.journal().page(since, limit)
    }

    /// Empties the log and sets the counters to zero; sequence numbers go on.
    pub fn clear_log(&self) {
        self.journal().clear();
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.journal().stats.clone()
    }

    /// Every consent that an account ever gave, with all its refresh tokens.
    pub fn grants(&self, hub_id: u64) -> Vec<FamilyView> {
        let vendor = self.vendor();
        let ids = vendor.by_hub.get(&hub_id).map_or(&[][..], Vec::as_slice);
        ids.iter().map(|&id| view(&vendor, id)).collect()
    }

    /// Consents with at least one living refresh token, oldest first.
    pub fn living(&self, filter: &TokenFilter) -> Vec<FamilyView> {
        let vendor = self.vendor();
        let ids: Vec<usize> = match filter.hub_id {
            Some(hub_id) => vendor.by_hub.get(&hub_id).cloned().unwrap_or_default(),
            None => (0..vendor.families.len()).collect(),
        };
        ids.into_iter()
            .filter(|&id| is_alive(&vendor, &vendor.families[id]))
            .filter(|&id| filter.client_id.as_deref().is_none_or(|c| *vendor.families[id].client_id == *c))
            .map(|id| {
                let mut view = view(&vendor, id);
                view.refresh_tokens.retain(|t| t.state == RefreshTokenState::Live);
                view
            })
            .collect()
    }

    /// Whether a refresh token answers as a living one (within a grace window it may answer without living).
    pub fn is_refresh_token_live(&self, token: &str) -> bool {
        self.vendor().live_refresh(token).is_some()
    }

    /// Whether the CRM API accepts an access token now.
    pub fn is_access_token_live(&self, token: &str) -> bool {
        self.vendor().bearer(token, self.now_ms()).is_ok()
    }
}

fn is_alive(vendor: &Vendor, family: &Family) -> bool {
    family.ended.is_none()
        && vendor.hub_exists(family.hub_id)
        && family.tokens.iter().any(|t| t.state == RefreshTokenState::Live)
}

fn view(vendor: &Vendor, id: usize) -> FamilyView {
    let family = &vendor.families[id];
    FamilyView {
        family: id as u64,
        client_id: family.client_id.to_string(),
        hub_id: family.hub_id,
        scopes: family.scopes.to_vec(),
        alive: is_alive(vendor, family),
        ended: family.ended,
        reuse_detected: family.reuse_detected,
        grace_replays: family.grace_replays,
        refresh_tokens: family
            .tokens
            .iter()
            .map(|t| RefreshTokenView {
                token: t.value.to_string(),
                fingerprint: fingerprint(&t.value),
                state: t.state,
            })
            .collect(),
    }
}

/// HubSpot takes https with a domain name, and http for localhost.
pub(crate) fn redirect_uri_is_allowed(uri: &str) -> bool {
    let Ok(url) = Url::parse(uri) else { return false };
    match (url.scheme(), url.host()) {
        ("https", Some(Host::Domain(_))) => true,
        ("http", Some(Host::Domain(domain))) => domain == "localhost",
        _ => false,
    }
}
