//! One consent and the refresh tokens that descend from it: the vendor's three ways of rotating them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{AfterWindow, GraceStyle, Rotation};

/// Why a family answers no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FamilyEnd {
    /// A refresh token of it was revoked; its access tokens live on.
    Revoked,
    /// The app was uninstalled; its access tokens died with it.
    Uninstalled,
    /// A spent refresh token came again; its access tokens live on.
    ReuseDetected,
}

/// Where a refresh token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RefreshTokenState {
    /// Answers.
    Live,
    /// Was used; answers within a grace window if the vendor has one.
    Spent {
        /// When it was used, in milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// A newer sibling took its place; never answers again.
    Superseded,
}

#[derive(Debug)]
pub(crate) struct RefreshToken {
    pub(crate) value: Arc<str>,
    pub(crate) state: RefreshTokenState,
}

#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) client_id: Arc<str>,
    pub(crate) hub_id: u64,
    pub(crate) user_id: u64,
    pub(crate) scopes: Arc<[String]>,
    pub(crate) ended: Option<FamilyEnd>,
    pub(crate) reuse_detected: u64,
    pub(crate) grace_replays: u64,
    pub(crate) tokens: Vec<RefreshToken>,
    /// Access tokens with a smaller serial number are dead.
    pub(crate) access_valid_from: u64,
}

/// What a used refresh token brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spend {
    Same,
    Rotated,
}

/// The token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) reuse_detected: bool,
}

impl Family {
    pub(crate) fn is_live(&self, token: usize) -> bool {
        self.ended.is_none() && self.tokens[token].state == RefreshTokenState::Live
    }

    pub(crate) fn push(&mut self, value: Arc<str>) -> usize {
        self.tokens.push(RefreshToken { value, state: RefreshTokenState::Live });
        self.tokens.len() - 1
    }

    /// Uses a refresh token; the caller adds the new one when the answer is [`Spend::Rotated`].
    pub(crate) fn spend(&mut self, token: usize, rotation: Rotation, now_ms: i64) -> Result<Spend, Refused> {
        let plain = Err(Refused { reuse_detected: false });
        if self.ended.is_some() {
            return plain;
        }
        match (self.tokens[token].state, rotation) {
            (RefreshTokenState::Live, Rotation::None) => Ok(Spend::Same),
            (RefreshTokenState::Live, _) => {
                self.tokens[token].state = RefreshTokenState::Spent { at_ms: now_ms };
                Ok(Spend::Rotated)
            }
            (RefreshTokenState::Spent { at_ms }, Rotation::Grace { style, window_secs, after_window }) => {
                let window_ms = i64::try_from(window_secs.saturating_mul(1000)).unwrap_or(i64::MAX);
                if now_ms.saturating_sub(at_ms) <= window_ms {
                    if style == GraceStyle::Supersede {
                        self.supersede_live();
                    }
                    self.grace_replays += 1;
                    return Ok(Spend::Rotated);
                }
                self.reuse(after_window == AfterWindow::KillFamily)
            }
            (RefreshTokenState::Spent { .. }, Rotation::Strict) => self.reuse(true),
            (RefreshTokenState::Spent { .. }, Rotation::None) | (RefreshTokenState::Superseded, _) => plain,
        }
    }

    fn supersede_live(&mut self) {
        for token in &mut self.tokens {
            if token.state == RefreshTokenState::Live {
                token.state = RefreshTokenState::Superseded;
            }
        }
    }

    fn reuse(&mut self, kill: bool) -> Result<Spend, Refused> {
        self.reuse_detected += 1;
        if kill {
            self.ended = Some(FamilyEnd::ReuseDetected);
        }
        Err(Refused { reuse_detected: true })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rng::Rng;

    fn family() -> Family {
        let mut family = Family {
            client_id: "c".into(),
            hub_id: 1,
            user_id: 1,
            scopes: Arc::new([]),
            ended: None,
            reuse_detected: 0,
            grace_replays: 0,
            tokens: Vec::new(),
            access_valid_from: 0,
        };
        family.push("0".into());
        family
    }

    /// The vendor written once more, as sets of live and of spent tokens and a flag.
    struct Sets {
        live: BTreeSet<usize>,
        spent: BTreeSet<usize>,
        dead: bool,
        n: usize,
    }

    impl Sets {
        fn spend(&mut self, t: usize, rotation: Rotation) -> bool {
            if self.dead {
                return false;
            }
            let strict = rotation == Rotation::Strict;
            if !(self.live.contains(&t) || (self.spent.contains(&t) && !strict)) {
                if strict && self.spent.contains(&t) {
                    self.dead = true;
                    self.live.clear();
                }
                return false;
            }
            self.n += 1;
            if self.live.remove(&t) {
                self.spent.insert(t);
            } else if matches!(rotation, Rotation::Grace { style: GraceStyle::Supersede, .. }) {
                self.live.clear();
            }
            self.live.insert(self.n);
            true
        }
    }

    #[test]
    fn every_rotation_agrees_with_the_set_model_over_random_histories() {
        let grace = |style| Rotation::Grace { style, window_secs: 60, after_window: AfterWindow::KillFamily };
        let rng = Rng::new(Some(7)).unwrap();
        for rotation in [grace(GraceStyle::Sibling), grace(GraceStyle::Supersede), Rotation::Strict] {
            for _ in 0..500 {
                let mut family = family();
                let mut sets = Sets { live: [0].into(), spent: BTreeSet::new(), dead: false, n: 0 };
                for _ in 0..12 {
                    let t = usize::try_from(rng.next() % family.tokens.len() as u64).unwrap();
                    let got = family.spend(t, rotation, 0);
                    if got == Ok(Spend::Rotated) {
                        family.push("x".into());
                    }
                    assert_eq!(got.is_ok(), sets.spend(t, rotation), "{rotation:?}");
                    let live: BTreeSet<usize> =
                        (0..family.tokens.len()).filter(|&i| family.is_live(i)).collect();
                    assert_eq!(live, sets.live, "{rotation:?}");
                    assert_eq!(family.ended.is_some(), sets.dead, "{rotation:?}");
                }
            }
        }
    }
}
