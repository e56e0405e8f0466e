//! The stand-in HubSpot, as a process that outlives everything else, and its control API.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::options::{Options, Rotation};
use crate::process::Process;

/// The app's public identifier.
pub const CLIENT_ID: &str = "11111111-2222-4333-8444-555555555555";
/// Its secret: the stand-in's, so no secret.
pub const CLIENT_SECRET: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
/// What every connection carries.
pub const SCOPES: [&str; 2] = ["oauth", "crm.objects.contacts.read"];
/// More requests than any run makes: an analysis of half a log would be wrong.
const LOG_CAPACITY: usize = 5_000_000;
/// Log entries that are read at a time.
const PAGE: usize = 5_000;
/// How long it may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running stand-in.
pub struct Sim {
    process: Process,
    address: SocketAddr,
    http: reqwest::Client,
}

/// A consent that nobody had to click for.
#[derive(Clone, Deserialize)]
pub struct Grant {
    /// The account.
    pub hub_id: u64,
    /// Its refresh token.
    pub refresh_token: String,
}

/// A consent with what became of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Family {
    /// Whether any of its refresh tokens answers.
    pub alive: bool,
    /// Spent tokens that came again where that is an alarm.
    pub reuse_detected: u64,
}

/// What the stand-in logged of a request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LogEntry {
    /// Counts up.
    pub seq: u64,
    /// When it came.
    pub at_ms: i64,
    /// Whence it came.
    pub peer: Option<IpAddr>,
    /// `token`, `introspect`, …
    pub endpoint: String,
    /// Of a token request.
    pub grant_type: Option<String>,
    /// The account.
    pub hub_id: Option<u64>,
    /// The refresh token that it spent, by its fingerprint.
    pub token: Option<String>,
    /// What it was given.
    pub tokens: Option<IssuedTokens>,
    /// Faults that it met.
    pub faults: Vec<String>,
    /// From the request's head to the answer's last byte.
    pub server_us: u64,
    /// Whether all of the answer was sent.
    pub delivered: bool,
}

/// What a request was given.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct IssuedTokens {
    /// When.
    pub at_ms: i64,
    /// When the access token expires.
    pub expires_at_ms: i64,
    /// The access token's fingerprint.
    pub access_token: String,
    /// The refresh token's.
    pub refresh_token: String,
}

impl LogEntry {
    /// Whether it is a refresh.
    pub fn is_refresh(&self) -> bool {
        self.endpoint == "token" && self.grant_type.as_deref() == Some("refresh_token")
    }
}

#[derive(Deserialize)]
struct LogPage {
    entries: Vec<LogEntry>,
    next: u64,
    lost: u64,
}

impl Sim {
    /// Starts a stand-in with one app that rotates refresh tokens as told.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(program: &Path, folder: &Path, options: &Options, seed: u64) -> Result<Self> {
        let rotation = match options.rotation {
            Rotation::None => json!({"mode": "none"}),
            Rotation::Strict => json!({"mode": "strict"}),
            // The meaner kind: a replay kills the tokens that were issued before.
            Rotation::Grace => json!({
                "mode": "grace", "style": "supersede", "window_secs": options.grace_seconds,
                "after_window": "kill_family",
            }),
        };
        let config = json!({
            "apps": [{
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "app_id": 1,
                "name": "Chaos",
                "required_scopes": SCOPES,
                "redirect_uris": ["http://localhost:7603/connect/callback"],
            }],
            "settings": {
                "token_lifetime_secs": options.token_life().as_secs(), "access_token_length": 64,
                "rotation": rotation,
            },
            "log_capacity": LOG_CAPACITY,
            "seed": seed,
        });
        let path = folder.join("hubspot.json");
        std::fs::write(&path, config.to_string()).context("cannot write the stand-in's configuration")?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&path);
        let mut process = Process::start("hubspot-sim", folder, &mut command, true)?;
        let output = process.output().context("its output is not piped")?;
        let line = tokio::time::timeout(PATIENCE, BufReader::new(output).lines().next_line()).await;
        let Ok(Ok(Some(line))) = line else {
            bail!("the stand-in did not come up:\n{}", process.end_of_log());
        };
        let address = line.strip_prefix("http://").context("the stand-in tells no address")?.parse()?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { process, address, http })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Fails if it has ended: it holds the truth.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn must_run(&mut self) -> Result<()> {
        match self.process.ended() {
            None => Ok(()),
            Some(status) => bail!("the stand-in ended ({status}):\n{}", self.process.end_of_log()),
        }
    }

    async fn control(&self, method: Method, path: &str, body: Option<&Value>) -> Result<String> {
        let mut request = self.http.request(method, format!("http://{}/_sim/{path}", self.address));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.context("the stand-in does not answer")?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("the stand-in refused {path}: {status} {text}");
        }
        Ok(text)
    }

    /// Makes so many consents of accounts numbered from `first_hub_id`.
    ///
    /// # Errors
    /// When the stand-in refuses.
    pub async fn grants(&self, first_hub_id: u64, count: usize) -> Result<Vec<Grant>> {
        let order = json!({
            "client_id": CLIENT_ID, "count": count, "first_hub_id": first_hub_id, "refresh_tokens_only": true,
        });
        Ok(serde_json::from_str(&self.control(Method::POST, "grants", Some(&order)).await?)?)
    }

    /// Orders faults.
    ///
    /// # Errors
    /// When the stand-in refuses.
    pub async fn order(&self, faults: &[Value]) -> Result<()> {
        for fault in faults {
            self.control(Method::POST, "faults", Some(fault)).await?;
        }
        Ok(())
    }

    /// Takes all faults back.
    ///
    /// # Errors
    /// When the stand-in does not answer.
    pub async fn be_well(&self) -> Result<()> {
        self.control(Method::DELETE, "faults", None).await.map(drop)
    }

    /// Ends every consent of an account.
    ///
    /// # Errors
    /// When the stand-in refuses.
    pub async fn uninstall(&self, hub_id: u64) -> Result<()> {
        self.control(Method::POST, &format!("portals/{hub_id}/uninstall"), Some(&json!({}))).await.map(drop)
    }

    /// Every consent that an account ever gave.
    ///
    /// # Errors
    /// When the stand-in does not answer.
    pub async fn families(&self, hub_id: u64) -> Result<Vec<Family>> {
        Ok(serde_json::from_str(&self.control(Method::GET, &format!("grants/{hub_id}"), None).await?)?)
    }

    /// Where the log ends now.
    ///
    /// # Errors
    /// When the stand-in does not answer.
    pub async fn log_end(&self) -> Result<u64> {
        Ok(serde_json::from_str::<LogPage>(&self.control(Method::GET, "log?limit=1", None).await?)?.next)
    }

    /// The whole log.
    ///
    /// # Errors
    /// When the stand-in does not answer, or has forgotten some of it.
    pub async fn log(&self) -> Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        let mut cursor = 0;
        loop {
            let path = format!("log?since={cursor}&limit={PAGE}");
            let page: LogPage = serde_json::from_str(&self.control(Method::GET, &path, None).await?)?;
            anyhow::ensure!(page.lost == 0, "the stand-in's log has lost {} entries", page.lost);
            if page.entries.is_empty() {
                return Ok(entries);
            }
            cursor = page.next;
            entries.extend(page.entries);
        }
    }
}
