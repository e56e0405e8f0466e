//! What the stand-in was asked and how it answered: a bounded log and counters, for tests to read.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::faults::Endpoint;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Still being worked on.
    Pending,
    /// Tokens were issued and the answer says so.
    Issued,
    /// Answered as it should be, without issuing tokens.
    Ok,
    /// Refused; `code` says why.
    Error,
    /// A fault replaced the answer or cut the connection; `issued` says whether tokens were issued.
    Fault,
}

/// One request to a vendor endpoint (the control API is not logged).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Counts up from 1 in order of arrival.
    pub seq: u64,
    /// The stand-in's time of arrival, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Who asked, as far as its address tells.
    pub peer: Option<IpAddr>,
    /// What was asked.
    pub endpoint: Endpoint,
    /// `grant_type` of a token request.
    pub grant_type: Option<String>,
    /// The OAuth client that the request named, or that its token belongs to.
    pub client_id: Option<String>,
    /// The account that the request's token or code belongs to.
    pub hub_id: Option<u64>,
    /// First 16 hex digits of the SHA-256 of the token that the request carried.
    pub token: Option<String>,
    /// The consent that the token descends from.
    pub family: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// HubSpot's word for a refusal.
    pub code: Option<String>,
    /// HTTP status of the answer; 0 when none was to be sent.
    pub status: u16,
    /// Whether tokens were issued, whatever the answer said.
    pub issued: bool,
    /// What was issued, and when.
    pub tokens: Option<IssuedTokens>,
    /// Faults that the request met.
    pub faults: Vec<String>,
    /// Microseconds from the request's head being read to the answer's bytes being given to the socket.
    pub server_us: u64,
    /// Whether the whole answer was given to the socket.
    pub delivered: bool,
}

/// Tokens that a request was given, whether or not it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedTokens {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// When the access token expires.
    pub expires_at_ms: i64,
    /// First 16 hex digits of the SHA-256 of the access token.
    pub access_token: String,
    /// The same of the refresh token that came with it.
    pub refresh_token: String,
}

/// A page of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// Entries, oldest first.
    pub entries: Vec<LogEntry>,
    /// Cursor for the next call's `since`.
    pub next: u64,
    /// Entries after the cursor that had fallen out already.
    pub lost: u64,
}

/// Counters since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Requests by endpoint.
    pub requests: BTreeMap<String, u64>,
    /// Refusals by HubSpot's word for them.
    pub errors: BTreeMap<String, u64>,
    /// Faults met, by name.
    pub faults: BTreeMap<String, u64>,
    /// Token requests with `grant_type=refresh_token`.
    pub refreshes: u64,
    /// Token requests with `grant_type=authorization_code`.
    pub code_exchanges: u64,
    /// Access tokens issued by the token endpoint.
    pub issued: u64,
    /// Spent refresh tokens that came again where that is an alarm.
    pub reuse_detected: u64,
    /// Access tokens issued of which the client was never told: the reply was dropped, truncated or replaced.
    pub issued_untold: u64,
}

#[derive(Debug)]
pub(crate) struct Journal {
    ring: VecDeque<LogEntry>,
    capacity: usize,
    last: u64,
    pub(crate) stats: Stats,
}

impl Journal {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { ring: VecDeque::new(), capacity: capacity.max(1), last: 0, stats: Stats::default() }
    }

    /// Adds an entry, gives it its number and counts it.
    pub(crate) fn open(&mut self, mut entry: LogEntry) -> u64 {
        self.last += 1;
        entry.seq = self.last;
        bump(&mut self.stats.requests, endpoint_name(entry.endpoint));
        match entry.grant_type.as_deref() {
            Some("refresh_token") => self.stats.refreshes += 1,
            Some("authorization_code") => self.stats.code_exchanges += 1,
            _ => {}
        }
        entry.faults.iter().for_each(|name| bump(&mut self.stats.faults, name));
        if self.ring.len() == self.capacity {
            self.ring.pop_front();
        }
        self.ring.push_back(entry);
        self.last
    }

    /// The entry with this number, unless it has fallen out.
    pub(crate) fn entry(&mut self, seq: u64) -> Option<&mut LogEntry> {
        let first = self.ring.front()?.seq;
        self.ring.get_mut(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    pub(crate) fn error(&mut self, code: &str) {
        bump(&mut self.stats.errors, code);
    }

    /// Entries after `since`, oldest first; without a cursor the newest `limit`.
    pub(crate) fn page(&self, since: Option<u64>, limit: usize) -> LogPage {
        let first = self.ring.front().map_or(self.last + 1, |e| e.seq);
        let newest = (self.last + 1).saturating_sub(limit as u64);
        let from = since.map_or(newest, |s| s.saturating_add(1)).max(first);
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        let entries: Vec<LogEntry> = self.ring.iter().skip(skip).take(limit).cloned().collect();
        LogPage {
            next: entries.last().map_or(self.last.max(since.unwrap_or(0)), |e| e.seq),
            lost: since.map_or(0, |s| first.saturating_sub(s.saturating_add(1))),
            entries,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.ring.clear();
        self.stats = Stats::default();
    }
}

fn bump(map: &mut BTreeMap<String, u64>, key: &str) {
    if let Some(n) = map.get_mut(key) {
        *n += 1;
    } else {
        map.insert(key.to_owned(), 1);
    }
}

fn endpoint_name(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Authorize => "authorize",
        Endpoint::Token => "token",
        Endpoint::Introspect => "introspect",
        Endpoint::Revoke => "revoke",
        Endpoint::Uninstall => "uninstall",
        Endpoint::Contacts => "contacts",
    }
}
