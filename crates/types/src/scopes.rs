//! Sets of OAuth scopes (RFC 6749, section 3.3).

use std::fmt;
use std::sync::Arc;

use arcstr::ArcStr;

/// The most scopes in one set.
pub const MAX_SCOPES: usize = 500;
/// The longest scope, in bytes.
pub const MAX_SCOPE_LENGTH: usize = 256;

/// A text that is not a set of scopes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidScope {
    /// A scope is empty, too long, or has a character that RFC 6749 does not allow.
    #[error("scope {0:?} must be 1 to 256 printable ASCII characters without space, '\"' or '\\'")]
    Malformed(String),
    /// More scopes than a set holds.
    #[error("{0} scopes are more than the {MAX_SCOPES} that are allowed")]
    TooMany(usize),
}

/// A sorted set of scopes without duplicates. Cloning shares it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Scopes(Arc<Box<[ArcStr]>>);

impl Scopes {
    /// A set of the given scopes.
    ///
    /// # Errors
    /// [`InvalidScope`] names the scope that is malformed, or the count that is too high.
    pub fn new<S: AsRef<str>>(scopes: impl IntoIterator<Item = S>) -> Result<Self, InvalidScope> {
        let mut set: Vec<ArcStr> = Vec::new();
        let mut count = 0_usize;
        for scope in scopes {
            let scope = scope.as_ref();
            count += 1;
            if count > MAX_SCOPES {
                continue;
            }
            if !is_scope(scope) {
                let shown: String = scope.chars().take(64).collect();
                return Err(InvalidScope::Malformed(shown));
            }
            set.push(ArcStr::from(scope));
        }
        if count > MAX_SCOPES {
            return Err(InvalidScope::TooMany(count));
        }
        set.sort_unstable();
        set.dedup();
        Ok(Self::from_sorted(set))
    }

    /// A set from the space-separated form of RFC 6749, section 3.3.
    ///
    /// # Errors
    /// As [`Scopes::new`].
    pub fn parse(text: &str) -> Result<Self, InvalidScope> {
        Self::new(text.split(' ').filter(|scope| !scope.is_empty()))
    }

    /// The scopes in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.0.iter().map(|scope| &**scope)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `scope` is one of them.
    pub fn contains(&self, scope: &str) -> bool {
        self.0.binary_search_by(|probe| (**probe).cmp(scope)).is_ok()
    }

    /// Whether every scope here is in `other` too.
    pub fn is_subset(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.iter().all(|scope| other.contains(scope))
    }

    /// Those that `other` lacks.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.filter(|scope| !other.contains(scope))
    }

    /// Those that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.filter(|scope| other.contains(scope))
    }

    /// Those that are in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if other.is_subset(self) {
            return self.clone();
        }
        let mut set: Vec<ArcStr> = self.0.iter().chain(other.0.iter()).cloned().collect();
        set.sort_unstable();
        set.dedup();
        Self::from_sorted(set)
    }

    fn from_sorted(set: Vec<ArcStr>) -> Self {
        Self(Arc::new(set.into_boxed_slice()))
    }

    fn filter(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self::from_sorted(self.0.iter().filter(|scope| keep(scope)).cloned().collect())
    }
}

fn is_scope(text: &str) -> bool {
    let allowed = |b: u8| b == 0x21 || (0x23..=0x5b).contains(&b) || (0x5d..=0x7e).contains(&b);
    !text.is_empty() && text.len() <= MAX_SCOPE_LENGTH && text.bytes().all(allowed)
}

impl fmt::Display for Scopes {
    /// The space-separated form of RFC 6749, section 3.3.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn malformed_scopes_are_named() {
        assert_eq!(Scopes::new(["a b"]).unwrap_err(), InvalidScope::Malformed("a b".into()));
        assert!(Scopes::new([""]).is_err());
        assert!(Scopes::new(["quote\""]).is_err());
        assert!(Scopes::new(["x".repeat(257)]).is_err());
        assert_eq!(Scopes::new((0..501).map(|i| i.to_string())).unwrap_err(), InvalidScope::TooMany(501));
    }

    #[test]
    fn the_text_form_is_sorted_and_without_duplicates() {
        assert_eq!(Scopes::parse("b a  b").unwrap().to_string(), "a b");
        assert!(Scopes::parse("").unwrap().is_empty());
    }

    fn set() -> impl Strategy<Value = BTreeSet<String>> {
        proptest::collection::btree_set("[a-d]{1,2}", 0..8)
    }

    proptest! {
        #[test]
        fn set_operations_agree_with_the_standard_library(a in set(), b in set()) {
            let (x, y) = (Scopes::new(&a).unwrap(), Scopes::new(&b).unwrap());
            let texts = |s: Scopes| s.iter().map(str::to_owned).collect::<BTreeSet<_>>();
            prop_assert_eq!(texts(x.union(&y)), &a | &b);
            prop_assert_eq!(texts(x.intersection(&y)), &a & &b);
            prop_assert_eq!(texts(x.difference(&y)), &a - &b);
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(Scopes::parse(&x.to_string()).unwrap(), x);
        }
    }
}
