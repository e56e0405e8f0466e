//! The stand-in HubSpot, as a process, and its control API.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::child::Child;

/// The app's public identifier.
pub const CLIENT_ID: &str = "11111111-2222-4333-8444-555555555555";
/// Its secret: the stand-in's, so no secret.
pub const CLIENT_SECRET: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
/// A day: refreshes ahead of expiry must not fall into the measured time.
pub const LONG_LIFE_SECS: u32 = 86_400;

/// A running stand-in.
pub struct Sim {
    child: Child,
    base_url: String,
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

/// What the stand-in logged of a request.
#[derive(Clone, Debug, Deserialize)]
pub struct LogEntry {
    /// Counts up.
    pub seq: u64,
    /// `token`, `introspect`, …
    pub endpoint: String,
    /// Of a token request.
    pub grant_type: Option<String>,
    /// The account.
    pub hub_id: Option<u64>,
    /// From the request's head to the answer's last byte.
    pub server_us: u64,
    /// Whether all of the answer was sent.
    pub delivered: bool,
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
    /// Starts a stand-in with one app.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(
        program: &Path,
        folder: &Path,
        scopes: &[String],
        token_length: usize,
    ) -> Result<Self> {
        let config = json!({
            "apps": [{
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "app_id": 1,
                "name": "Benchmark",
                "required_scopes": scopes,
                "redirect_uris": ["http://localhost:7603/connect/callback"],
            }],
            "settings": {"token_lifetime_secs": LONG_LIFE_SECS, "access_token_length": token_length},
        });
        let path = folder.join("hubspot.json");
        std::fs::write(&path, config.to_string()).context("cannot write the stand-in's configuration")?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&path);
        let mut child = Child::start("hubspot-sim", folder, &mut command, true)?;
        let base_url = child.first_line().await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { child, base_url, http })
    }

    /// `http://host:port`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn must_run(&mut self) -> Result<()> {
        self.child.must_run()
    }

    async fn control(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Result<String> {
        let mut request = self.http.request(method, format!("{}/_sim/{path}", self.base_url));
        if let Some(body) = body {
            request = request.json(&body);
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
        Ok(serde_json::from_str(&self.control(reqwest::Method::POST, "grants", Some(order)).await?)?)
    }

    /// Sets how long access tokens live that are issued from now on.
    ///
    /// # Errors
    /// When the stand-in refuses.
    pub async fn set_token_lifetime(&self, secs: u32) -> Result<()> {
        let patch = json!({"token_lifetime_secs": secs});
        self.control(reqwest::Method::PATCH, "settings", Some(patch)).await.map(drop)
    }

    /// Makes refreshes of one account slow.
    ///
    /// # Errors
    /// When the stand-in refuses.
    pub async fn delay_refreshes(&self, hub_id: u64, ms: u64) -> Result<()> {
        let fault = json!({
            "kind": "latency", "ms": ms, "endpoint": "token", "grant_type": "refresh_token", "hub_id": hub_id,
        });
        self.control(reqwest::Method::POST, "faults", Some(fault)).await.map(drop)
    }

    /// Where the log ends now.
    ///
    /// # Errors
    /// When the stand-in does not answer.
    pub async fn log_end(&self) -> Result<u64> {
        let text = self.control(reqwest::Method::GET, "log?limit=1", None).await?;
        Ok(serde_json::from_str::<LogPage>(&text)?.next)
    }

    /// What was logged after `since`.
    ///
    /// # Errors
    /// When the stand-in does not answer, or has forgotten some of it.
    pub async fn log_since(&self, since: u64) -> Result<Vec<LogEntry>> {
        let mut entries = Vec::new();
        let mut cursor = since;
        loop {
            let text =
                self.control(reqwest::Method::GET, &format!("log?since={cursor}&limit=1000"), None).await?;
            let page: LogPage = serde_json::from_str(&text)?;
            anyhow::ensure!(page.lost == 0, "the stand-in's log has lost {} entries", page.lost);
            if page.entries.is_empty() {
                return Ok(entries);
            }
            cursor = page.next;
            entries.extend(page.entries);
        }
    }
}
