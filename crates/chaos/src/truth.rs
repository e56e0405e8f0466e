//! What the vendor's log says was issued to whom.

use std::collections::HashMap;

use crate::replica::replica_of;
use crate::sim::LogEntry;
use crate::spans::Span;

/// An answer of the token endpoint that issued tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Its number in the log.
    pub seq: u64,
    /// The account.
    pub hub_id: u64,
    /// Who asked, where that is known.
    pub replica: Option<usize>,
    /// When the request came.
    pub asked_ms: i64,
    /// When the tokens were issued.
    pub issued_ms: i64,
    /// When the access token expires.
    pub expires_ms: i64,
    /// When the answer's last byte was sent, if it was.
    pub delivered_ms: Option<i64>,
    /// Whether a fault replaced the answer or cut it off.
    pub is_spoilt: bool,
    /// The access token, by its fingerprint.
    pub access_token: u64,
}

impl Issue {
    /// While the access token lives, less what counts as expired.
    pub fn life(&self) -> Span {
        Span::new(self.issued_ms, self.expires_ms - crate::judge::EXPIRED_BELOW_MS)
    }
}

/// Everything that was issued.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    issues: Vec<Issue>,
    by_access_token: HashMap<u64, usize>,
    by_hub: HashMap<u64, Vec<usize>>,
}

/// Faults that leave the asker without the tokens that were issued.
const SPOILING: [&str; 4] = ["drop_reply_after_issue", "truncated_body", "html", "status"];

impl Truth {
    /// Reads a log.
    pub fn of(log: &[LogEntry]) -> Self {
        let mut truth = Self::default();
        for issue in log.iter().filter_map(issue) {
            let index = truth.issues.len();
            truth.by_access_token.insert(issue.access_token, index);
            truth.by_hub.entry(issue.hub_id).or_default().push(index);
            truth.issues.push(issue);
        }
        for of_hub in truth.by_hub.values_mut() {
            of_hub.sort_by_key(|index| truth.issues[*index].issued_ms);
        }
        truth
    }

    /// What was issued, in the order of the requests.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// The answer that brought an access token.
    pub fn of_access_token(&self, token: u64) -> Option<&Issue> {
        self.by_access_token.get(&token).map(|index| &self.issues[*index])
    }

    /// What was issued to an account, in that order.
    pub fn of_hub(&self, hub_id: u64) -> impl DoubleEndedIterator<Item = &Issue> {
        self.by_hub.get(&hub_id).into_iter().flatten().map(|index| &self.issues[*index])
    }
}

fn issue(entry: &LogEntry) -> Option<Issue> {
    let tokens = entry.tokens.as_ref()?;
    let took_ms = i64::try_from(entry.server_us / 1000).unwrap_or(i64::MAX);
    Some(Issue {
        seq: entry.seq,
        hub_id: entry.hub_id?,
        replica: entry.peer.and_then(replica_of),
        asked_ms: entry.at_ms,
        issued_ms: tokens.at_ms,
        expires_ms: tokens.expires_at_ms,
        delivered_ms: entry.delivered.then(|| entry.at_ms.saturating_add(took_ms)),
        is_spoilt: entry.faults.iter().any(|fault| SPOILING.contains(&fault.as_str())),
        access_token: u64::from_str_radix(&tokens.access_token, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callers::fingerprint;
    use crate::sim::IssuedTokens;

    #[test]
    fn a_log_is_read_as_the_stand_in_writes_it() {
        // The SHA-256 of "abc" begins so.
        let access_token = "ba7816bf8f01cfea".to_owned();
        let tokens =
            IssuedTokens { at_ms: 1_050, expires_at_ms: 11_050, access_token, refresh_token: String::new() };
        let entry = LogEntry {
            seq: 3,
            at_ms: 1_000,
            peer: Some(crate::replica::source(2)),
            endpoint: "token".to_owned(),
            grant_type: Some("refresh_token".to_owned()),
            hub_id: Some(7),
            token: None,
            tokens: Some(tokens),
            faults: vec!["latency".to_owned()],
            server_us: 60_000,
            delivered: true,
        };
        let refused = LogEntry { tokens: None, ..entry.clone() };
        let truth = Truth::of(&[refused, entry]);
        let issue = truth.of_access_token(fingerprint("abc")).unwrap();
        assert_eq!((issue.replica, issue.delivered_ms, issue.is_spoilt), (Some(2), Some(1_060), false));
        assert_eq!(truth.of_hub(7).count(), 1);
        assert_eq!(truth.of_hub(8).count(), 0);
    }
}
