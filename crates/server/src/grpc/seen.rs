//! A bounded memory of who was given which token, so that the first time can be told from later ones.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokenward_broker::LiveToken;
use tokenward_types::Principal;

/// Entries that one hash may be in: a cache line of them.
const WAYS: usize = 16;
/// Sets on one page of memory; pages are allocated when something first falls on them.
const SETS_PER_PAGE: usize = 64;
const PAGES: usize = 1024;

type Page = Box<[AtomicU32]>;

/// Remembers about a million pairs of principal and token, as 48 bits of a hash under a random key, without a lock. A pair
/// that was pushed out, or whose token was read from the database again, counts as new: the audit trail may tell of it
/// twice, and misses one in two hundred million.
pub(crate) struct SeenTokens {
    hasher: RandomState,
    pages: Box<[OnceLock<Page>]>,
}

impl SeenTokens {
    /// An empty memory.
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), pages: (0..PAGES).map(|_| OnceLock::new()).collect() }
    }

    /// Whether this is the first time that the principal gets this token.
    pub(crate) fn is_first(&self, principal: &Principal, tenant: &str, token: &LiveToken) -> bool {
        let pair = (principal.as_str(), tenant, token.connection.as_str(), token.fingerprint.as_str());
        let hash = self.hasher.hash_one(pair);
        // Most tokens have one caller, whom the token itself knows.
        let caller = u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0).max(1);
        token.is_first_told(caller).unwrap_or_else(|| self.insert(hash))
    }

    fn insert(&self, hash: u64) -> bool {
        let [place, tag] = [hash >> 32, hash & u64::from(u32::MAX)];
        let place = usize::try_from(place).unwrap_or(0);
        // Zero marks a free entry.
        let tag = u32::try_from(tag).unwrap_or(0).max(1);
        let page = self.pages[place % PAGES]
            .get_or_init(|| (0..SETS_PER_PAGE * WAYS).map(|_| AtomicU32::new(0)).collect());
        let first = place / PAGES % SETS_PER_PAGE * WAYS;
        let set = &page[first..first + WAYS];
        let mut free = None;
        for entry in set {
            match entry.load(Ordering::Relaxed) {
                0 => free = free.or(Some(entry)),
                known if known == tag => return false,
                _ => {}
            }
        }
        // These bits did not choose the set, so they push out a random one.
        let oldest = &set[usize::try_from(hash).unwrap_or(0) % WAYS];
        free.unwrap_or(oldest).store(tag, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_new_once() {
        let seen = SeenTokens::new();
        let hash = |n: u64| seen.hasher.hash_one(n);
        for n in 0..50_000 {
            assert!(seen.insert(hash(n)), "{n} is new");
        }
        for n in 0..50_000 {
            assert!(!seen.insert(hash(n)), "{n} was seen");
        }
    }

    #[test]
    fn a_full_set_pushes_one_out_and_stays_bounded() {
        let seen = SeenTokens::new();
        for n in 1..=17 {
            assert!(seen.insert(n), "all of these fall into one set");
        }
        assert!(!seen.insert(1));
        assert!(seen.insert(2), "17 pushed 2 out");
        assert_eq!(seen.pages.iter().filter(|page| page.get().is_some()).count(), 1);
    }
}
