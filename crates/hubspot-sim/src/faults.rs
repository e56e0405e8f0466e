//! Trouble on order: which requests it hits and what happens to them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// The vendor endpoint that a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// The consent page and its decision.
    Authorize,
    /// The token endpoint.
    Token,
    /// Introspection, the v1 metadata GETs included.
    Introspect,
    /// Revocation.
    Revoke,
    /// Uninstallation.
    Uninstall,
    /// `GET /crm/v3/objects/contacts`.
    Contacts,
}

/// A fault: what happens, to which requests, how often.
///
/// A request meets every fault that matches it: delays add up, edits of the answer are all made, and the first
/// fault that replaces the answer or cuts the connection wins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// What happens.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// The endpoint that it happens to; all of them when left out.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// Only requests with this `grant_type`.
    #[serde(default)]
    pub grant_type: Option<String>,
    /// Only requests of this OAuth client.
    #[serde(default)]
    pub client_id: Option<String>,
    /// Only requests whose token belongs to this account.
    #[serde(default)]
    pub hub_id: Option<u64>,
    /// Lets so many matching requests pass first.
    #[serde(default)]
    pub skip: u64,
    /// Ends after so many hits; goes on for ever when left out.
    #[serde(default)]
    pub count: Option<u64>,
    /// Hits a matching request with this probability; always when left out.
    #[serde(default)]
    pub probability: Option<f64>,
    /// Delays and replaced answers: do the real work first, so that tokens are issued (and rotated) all the same.
    #[serde(default)]
    pub after_issue: bool,
}

impl Fault {
    /// A fault that hits every request until it is cleared.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            endpoint: None,
            grant_type: None,
            client_id: None,
            hub_id: None,
            skip: 0,
            count: None,
            probability: None,
            after_issue: false,
        }
    }

    /// Only this endpoint.
    #[must_use]
    pub fn on(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// Only refreshes.
    #[must_use]
    pub fn on_refresh(mut self) -> Self {
        self.endpoint = Some(Endpoint::Token);
        self.grant_type = Some("refresh_token".into());
        self
    }

    /// Only this account.
    #[must_use]
    pub fn for_hub(mut self, hub_id: u64) -> Self {
        self.hub_id = Some(hub_id);
        self
    }

    /// Only the next `count` matching requests.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// The real work is done before the answer is delayed or replaced.
    #[must_use]
    pub fn after_issue(mut self) -> Self {
        self.after_issue = true;
        self
    }
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FaultKind {
    /// Waits, before the work or (with `after_issue`) before the answer.
    Latency {
        /// Milliseconds.
        ms: u64,
    },
    /// Answers with a status of its own.
    Status {
        /// HTTP status code.
        status: u16,
        /// Body; a short JSON error when left out.
        #[serde(default)]
        body: Option<String>,
        /// Content type of the body.
        #[serde(default)]
        content_type: Option<String>,
        /// `Retry-After` in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Answers with a proxy's HTML page.
    Html {
        /// HTTP status code; 502 when left out.
        #[serde(default)]
        status: Option<u16>,
    },
    /// Answers 200 with no body.
    EmptyBody,
    /// Answers 200 with a JSON body of many bytes (10 MiB when left out).
    HugeBody {
        /// Size of the body in bytes.
        #[serde(default)]
        bytes: Option<usize>,
    },
    /// Does the work, then sends half of the body and closes the connection.
    TruncatedBody,
    /// Does the work, then closes the connection without a byte of answer.
    DropReplyAfterIssue,
    /// Closes the connection without doing anything.
    HangUpBefore,
    /// Answers 429.
    RateLimited {
        /// `Retry-After` in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
        /// `policyName`; `TEN_SECONDLY_ROLLING` when left out.
        #[serde(default)]
        policy_name: Option<String>,
    },
    /// Answers `BAD_HUB`, as for a deleted account.
    BadHub,
    /// Answers `BAD_REFRESH_TOKEN` though the token lives.
    BadRefreshToken,
    /// Answers `BAD_CLIENT_SECRET` though the secret is right.
    BadClientSecret,
    /// The answer lacks `expires_in`.
    NoExpiresIn,
    /// The answer carries `expires_in: -1`.
    NegativeExpiresIn,
    /// The answer carries no refresh token (which is rotated all the same).
    NoRefreshToken,
    /// The answer names another account.
    WrongHubId {
        /// The account that it names.
        answer_hub_id: u64,
    },
}

impl FaultKind {
    /// The fault's name in the control API and in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Status { .. } => "status",
            Self::Html { .. } => "html",
            Self::EmptyBody => "empty_body",
            Self::HugeBody { .. } => "huge_body",
            Self::TruncatedBody => "truncated_body",
            Self::DropReplyAfterIssue => "drop_reply_after_issue",
            Self::HangUpBefore => "hang_up_before",
            Self::RateLimited { .. } => "rate_limited",
            Self::BadHub => "bad_hub",
            Self::BadRefreshToken => "bad_refresh_token",
            Self::BadClientSecret => "bad_client_secret",
            Self::NoExpiresIn => "no_expires_in",
            Self::NegativeExpiresIn => "negative_expires_in",
            Self::NoRefreshToken => "no_refresh_token",
            Self::WrongHubId { .. } => "wrong_hub_id",
        }
    }

    fn is_edit(&self) -> bool {
        matches!(
            self,
            Self::NoExpiresIn | Self::NegativeExpiresIn | Self::NoRefreshToken | Self::WrongHubId { .. }
        )
    }
}

/// A fault in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActiveFault {
    /// By which it can be removed.
    pub id: u64,
    /// How many requests it hit so far.
    pub hits: u64,
    /// The fault as it was ordered; `skip` and `count` are what is left of them.
    #[serde(flatten)]
    pub fault: Fault,
}

/// What a fault's selector is compared with.
pub(crate) struct Subject<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) grant_type: Option<&'a str>,
    pub(crate) client_id: Option<&'a str>,
    pub(crate) hub_id: Option<u64>,
}

/// What is to happen to one request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay_before: Duration,
    pub(crate) delay_after: Duration,
    pub(crate) replace: Option<FaultKind>,
    /// The answer is replaced only after the real work was done.
    pub(crate) work_first: bool,
    pub(crate) edits: Vec<FaultKind>,
    pub(crate) names: Vec<&'static str>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) active: Vec<ActiveFault>,
    next_id: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) -> u64 {
        self.next_id += 1;
        self.active.push(ActiveFault { id: self.next_id, hits: 0, fault });
        self.next_id
    }

    pub(crate) fn plan(&mut self, subject: &Subject<'_>, rng: &Rng) -> Plan {
        let mut plan = Plan::default();
        for active in &mut self.active {
            let fault = &mut active.fault;
            // A second replacement could not happen: its count must not be used up.
            let replaces = !fault.kind.is_edit() && !matches!(fault.kind, FaultKind::Latency { .. });
            if !matches(fault, subject) || (replaces && plan.replace.is_some()) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if fault.probability.is_some_and(|p| !rng.chance(p)) {
                continue;
            }
            if let Some(count) = &mut fault.count {
                *count -= 1;
            }
            active.hits += 1;
            plan.names.push(fault.kind.name());
            match &fault.kind {
                FaultKind::Latency { ms } if fault.after_issue => {
                    plan.delay_after += Duration::from_millis(*ms);
                }
                FaultKind::Latency { ms } => {
                    plan.delay_before += Duration::from_millis(*ms);
                }
                kind if kind.is_edit() => plan.edits.push(kind.clone()),
                kind => {
                    plan.work_first = fault.after_issue
                        || matches!(kind, FaultKind::TruncatedBody | FaultKind::DropReplyAfterIssue);
                    plan.replace = Some(kind.clone());
                }
            }
        }
        plan
    }
}

fn matches(fault: &Fault, subject: &Subject<'_>) -> bool {
    fault.count != Some(0)
        && fault.endpoint.is_none_or(|e| e == subject.endpoint)
        && fault.grant_type.as_deref().is_none_or(|g| Some(g) == subject.grant_type)
        && fault.client_id.as_deref().is_none_or(|c| Some(c) == subject.client_id)
        && fault.hub_id.is_none_or(|h| Some(h) == subject.hub_id)
}
