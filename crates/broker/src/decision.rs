//! Choices of a connection that were made before, so that the warm path does not weigh the same scopes and rules again.
//!
//! A decision holds as long as everything it was made from is the very same: the rules of the caller, the tenant with its
//! connections, what is known of them, and the request. All of that is compared, nothing is trusted to a hash.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::{ArcSwapOption, Guard};

use crate::access::CallerRules;
use crate::token::{LiveToken, TokenRequest};

/// How many decisions a tenant keeps: about as many callers ask for it at a time.
const SLOTS: usize = 4;

/// Which connection a request leads to.
pub(crate) struct Decision {
    rules: Arc<CallerRules>,
    changes: u64,
    provider: Box<str>,
    connection: Box<str>,
    account: Box<str>,
    scopes: Arc<[String]>,
    /// The connection's place among the tenant's.
    pub chosen: usize,
    last_issued: AtomicI64,
}

impl Decision {
    /// A decision for `request`, made while the tenant had seen so many changes.
    pub(crate) fn new(
        rules: Arc<CallerRules>,
        changes: u64,
        request: &TokenRequest<'_>,
        scopes: Arc<[String]>,
        chosen: usize,
    ) -> Self {
        Self {
            rules,
            changes,
            provider: request.provider.into(),
            connection: request.connection.into(),
            account: request.account.into(),
            scopes,
            chosen,
            last_issued: AtomicI64::new(i64::MIN),
        }
    }

    fn answers(&self, rules: &Arc<CallerRules>, changes: u64, request: &TokenRequest<'_>) -> bool {
        Arc::ptr_eq(&self.rules, rules)
            && self.changes == changes
            && *self.provider == *request.provider
            && *self.connection == *request.connection
            && *self.account == *request.account
            && *self.scopes == *request.scopes
    }

    /// Notes that this token was given out, and tells whether it was the last time already.
    pub(crate) fn is_repeat(&self, live: &LiveToken) -> bool {
        let issued = live.issued_at.as_micros();
        // A plain load first: writing would move the cache line between threads at every call.
        self.last_issued.load(Ordering::Relaxed) == issued
            || self.last_issued.swap(issued, Ordering::Relaxed) == issued
    }
}

/// The decisions of one tenant; the newest one of a slot stays.
#[derive(Default)]
pub(crate) struct Decisions([ArcSwapOption<Decision>; SLOTS]);

impl std::fmt::Debug for Decisions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decisions")
    }
}

impl Decisions {
    fn slot(&self, rules: &Arc<CallerRules>) -> &ArcSwapOption<Decision> {
        // Allocations are at least 64 bytes apart here.
        &self.0[(Arc::as_ptr(rules) as usize / 64) % SLOTS]
    }

    /// The decision for this request, if it was made and still holds.
    pub(crate) fn find(
        &self,
        rules: &Arc<CallerRules>,
        changes: u64,
        request: &TokenRequest<'_>,
    ) -> Option<Guard<Option<Arc<Decision>>>> {
        let kept = self.slot(rules).load();
        kept.as_ref().is_some_and(|kept| kept.answers(rules, changes, request)).then_some(kept)
    }

    /// Keeps a decision.
    pub(crate) fn keep(&self, decision: Arc<Decision>) {
        self.slot(&decision.rules).store(Some(decision));
    }
}
