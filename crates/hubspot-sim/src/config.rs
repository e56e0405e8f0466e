//! What the stand-in starts with and what can be changed while it runs.

use std::{collections::BTreeSet, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::clock::ClockKind;

/// Everything that [`HubspotSim::start`](crate::HubspotSim::start) needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Address to listen on; port 0 picks a free one.
    pub listen: SocketAddr,
    /// OAuth apps that exist from the start.
    pub apps: Vec<App>,
    /// Accounts that exist from the start.
    pub portals: Vec<Portal>,
    /// The vendor's behaviour; can be changed later.
    pub settings: Settings,
    /// Where time comes from.
    pub clock: ClockKind,
    /// How many log entries are kept; older ones fall out.
    pub log_capacity: usize,
    /// Makes generated tokens repeatable; without it they differ from run to run.
    pub seed: Option<u64>,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            apps: Vec::new(),
            portals: Vec::new(),
            settings: Settings::default(),
            clock: ClockKind::Real,
            log_capacity: 20_000,
            seed: None,
        }
    }
}

impl SimConfig {
    /// One app with the given redirect URIs and two accounts: enough to click through a connect flow.
    pub fn demo<I: IntoIterator<Item = S>, S: Into<String>>(redirect_uris: I) -> Self {
        Self {
            apps: vec![App {
                client_id: "11111111-2222-4333-8444-555555555555".into(),
                client_secret: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee".into(),
                app_id: 100_001,
                name: "Demo Integration".into(),
                required_scopes: vec!["oauth".into(), "crm.objects.contacts.read".into()],
                optional_scopes: vec![
                    "crm.objects.contacts.write".into(),
                    "crm.objects.companies.read".into(),
                ],
                redirect_uris: redirect_uris.into_iter().map(Into::into).collect(),
            }],
            portals: vec![
                Portal::new(1_234_567, "acme.example", "ada@acme.example"),
                Portal::new(7_654_321, "globex.example", "grace@globex.example"),
            ],
            ..Self::default()
        }
    }
}

/// An OAuth app as registered in a developer account.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Public identifier.
    pub client_id: String,
    /// Secret that is valid from the start.
    pub client_secret: String,
    /// Number that introspection reports.
    #[serde(default)]
    pub app_id: u64,
    /// Name on the consent page.
    pub name: String,
    /// Scopes that every authorize URL must ask for; `oauth` belongs here.
    pub required_scopes: Vec<String>,
    /// Scopes that an authorize URL may ask for.
    #[serde(default)]
    pub optional_scopes: Vec<String>,
    /// Redirect URIs: https with a domain name, or http with `localhost`; compared to the letter.
    pub redirect_uris: Vec<String>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("client_id", &self.client_id)
            .field("name", &self.name)
            .field("redirect_uris", &self.redirect_uris)
            .finish_non_exhaustive()
    }
}

/// A HubSpot account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portal {
    /// The account's number.
    pub hub_id: u64,
    /// The account's domain.
    pub hub_domain: String,
    /// Who consents when somebody clicks Grant.
    pub user_email: String,
}

impl Portal {
    /// An account with its domain and its user.
    pub fn new(hub_id: u64, hub_domain: &str, user_email: &str) -> Self {
        Self { hub_id, hub_domain: hub_domain.into(), user_email: user_email.into() }
    }
}

/// What happens to a refresh token when it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rotation {
    /// The same refresh token comes back, as HubSpot does today.
    #[default]
    None,
    /// A new refresh token comes back; the spent one still answers for a while.
    Grace {
        /// What a replay within the window does to the tokens issued before.
        style: GraceStyle,
        /// How long a spent token still answers, in seconds.
        window_secs: u64,
        /// What a replay after the window does.
        #[serde(default)]
        after_window: AfterWindow,
    },
    /// A new refresh token comes back; a spent one that comes again ends the whole family.
    Strict,
}

/// How a vendor with a grace window answers a replayed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraceStyle {
    /// One more live token: all children of the spent token live.
    Sibling,
    /// The newest token alone lives: older children die without a word.
    Supersede,
}

/// What a spent token does that comes again after its grace window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterWindow {
    /// Reuse is detected: the whole family ends.
    #[default]
    KillFamily,
    /// The spent token is refused and nothing else happens.
    Refuse,
}

/// Which error bodies the OAuth endpoints answer with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorStyle {
    /// v1 answers the old form, later versions the new one.
    #[default]
    ByVersion,
    /// `status`, `message`, `correlationId` everywhere.
    Old,
    /// RFC 6749 `error` and `error_description` beside `status` and `message` everywhere.
    New,
}

/// Behaviour that can be changed while the stand-in runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Life of an access token in seconds.
    pub token_lifetime_secs: u32,
    /// Length of an access token in characters, at most 4096.
    pub access_token_length: usize,
    /// What happens to refresh tokens.
    pub rotation: Rotation,
    /// Which error bodies are answered.
    pub error_style: ErrorStyle,
    /// Optional scopes that a consent silently leaves out.
    pub dropped_optional_scopes: BTreeSet<String>,
    /// HTTP status of `BAD_CLIENT_SECRET`: 400 or 401.
    pub wrong_secret_status: u16,
    /// Forget `code_challenge`, as an authorize page without PKCE would.
    pub ignore_pkce: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            token_lifetime_secs: 1800,
            access_token_length: 300,
            rotation: Rotation::None,
            error_style: ErrorStyle::ByVersion,
            dropped_optional_scopes: BTreeSet::new(),
            wrong_secret_status: 400,
            ignore_pkce: false,
        }
    }
}

/// Changes to [`Settings`]: what is left out stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsPatch {
    /// See [`Settings::token_lifetime_secs`].
    pub token_lifetime_secs: Option<u32>,
    /// See [`Settings::access_token_length`].
    pub access_token_length: Option<usize>,
    /// See [`Settings::rotation`].
    pub rotation: Option<Rotation>,
    /// See [`Settings::error_style`].
    pub error_style: Option<ErrorStyle>,
    /// See [`Settings::dropped_optional_scopes`].
    pub dropped_optional_scopes: Option<BTreeSet<String>>,
    /// See [`Settings::wrong_secret_status`].
    pub wrong_secret_status: Option<u16>,
    /// See [`Settings::ignore_pkce`].
    pub ignore_pkce: Option<bool>,
}

impl SettingsPatch {
    pub(crate) fn apply(self, to: &mut Settings) {
        fn set<T>(to: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *to = value;
            }
        }
        set(&mut to.token_lifetime_secs, self.token_lifetime_secs);
        set(&mut to.access_token_length, self.access_token_length.map(|n| n.min(4096)));
        set(&mut to.rotation, self.rotation);
        set(&mut to.error_style, self.error_style);
        set(&mut to.dropped_optional_scopes, self.dropped_optional_scopes);
        set(&mut to.wrong_secret_status, self.wrong_secret_status);
        set(&mut to.ignore_pkce, self.ignore_pkce);
    }
}
