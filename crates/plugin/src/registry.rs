use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use crate::{Problems, Section};

/// What keeps a backend from coming up although its configuration is well-formed. The message names backend and remedy.
#[derive(Debug, thiserror::Error)]
#[error("{kind}: {message}")]
pub struct BuildError {
    /// The kind of backend.
    pub kind: &'static str,
    /// What is wrong and how to mend it.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl BuildError {
    /// An error of the backend `kind`.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds the cause.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

type Building<B> = Pin<Box<dyn Future<Output = Result<B, BuildError>> + Send>>;

/// A backend whose configuration was checked; only building is left.
pub struct Prepared<B>(Box<dyn FnOnce() -> Building<B> + Send>);

impl<B> Prepared<B> {
    /// Wraps what builds the backend.
    pub fn new<F, Fut>(build: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<B, BuildError>> + Send + 'static,
    {
        Self(Box::new(move || Box::pin(build())))
    }

    /// Builds it.
    ///
    /// # Errors
    /// What keeps the backend from coming up.
    pub async fn build(self) -> Result<B, BuildError> {
        (self.0)().await
    }
}

type Prepare<B, C> = Box<dyn Fn(&Section, &C) -> Result<Prepared<B>, Problems> + Send + Sync>;

/// A kind of backend. `B` is what it builds, such as `Arc<dyn Storage>`; `C` is what the family hands to every backend.
pub struct BackendDef<B, C> {
    kind: &'static str,
    summary: &'static str,
    /// An error: compiled out; the text names the cargo feature.
    prepare: Result<Prepare<B, C>, &'static str>,
}

impl<B, C> BackendDef<B, C> {
    /// A backend that is here. `prepare` parses and checks the section and collects all problems.
    pub fn new(
        kind: &'static str,
        summary: &'static str,
        prepare: impl Fn(&Section, &C) -> Result<Prepared<B>, Problems> + Send + Sync + 'static,
    ) -> Self {
        Self { kind, summary, prepare: Ok(Box::new(prepare)) }
    }

    /// A backend that this build lacks; `feature` is the cargo feature that brings it.
    pub fn compiled_out(kind: &'static str, summary: &'static str, feature: &'static str) -> Self {
        Self { kind, summary, prepare: Err(feature) }
    }

    /// The word that selects it in the configuration.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Whether this build has it.
    pub fn is_compiled_in(&self) -> bool {
        self.prepare.is_ok()
    }

    /// What it is, in a line.
    pub fn summary(&self) -> &'static str {
        self.summary
    }
}

/// How many backends of a family a configuration must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// One, no more and no less.
    ExactlyOne,
    /// Any number, none included.
    Any,
}

impl Constraint {
    /// Checks a count.
    pub fn check(self, at: &str, count: usize, problems: &mut Problems) {
        if self == Self::ExactlyOne && count != 1 {
            problems.add(at, format!("needs exactly one backend, found {count}"));
        }
    }
}

/// The backends of one family.
pub struct Registry<B, C> {
    family: &'static str,
    defs: BTreeMap<&'static str, BackendDef<B, C>>,
}

impl<B, C> Registry<B, C> {
    /// An empty family, such as `storage`.
    pub fn new(family: &'static str) -> Self {
        Self { family, defs: BTreeMap::new() }
    }

    /// Adds a backend.
    ///
    /// # Panics
    /// When two have the same kind: a mistake in the composition root that its test finds.
    #[must_use]
    pub fn with(mut self, def: BackendDef<B, C>) -> Self {
        let former = self.defs.insert(def.kind, def);
        assert!(former.is_none(), "two {} backends of the same kind", self.family);
        self
    }

    /// The backends in order of their kinds.
    pub fn iter(&self) -> impl Iterator<Item = &BackendDef<B, C>> {
        self.defs.values()
    }

    /// Checks a section for the backend `kind`; building is left to the caller.
    ///
    /// # Errors
    /// An unknown kind (the message lists those that there are), one that was compiled out, or the section's problems.
    pub fn prepare(&self, kind: &str, section: &Section, context: &C) -> Result<Prepared<B>, Problems> {
        let mut problems = Problems::new();
        match self.defs.get(kind).map(|def| &def.prepare) {
            Some(Ok(prepare)) => return prepare(section, context),
            Some(Err(feature)) => problems.add(
                section.option("kind"),
                format!(
                    "{kind:?} is not in this build: build with `cargo build --release --features {feature}`"
                ),
            ),
            None => {
                let known: Vec<_> = self.defs.keys().copied().collect();
                problems.add(
                    section.option("kind"),
                    format!("unknown {} backend {kind:?}; there are: {}", self.family, known.join(", ")),
                );
            }
        }
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section() -> Section {
        Section { at: "storage".into(), name: "storage".into(), values: serde_json::Map::new() }
    }

    fn registry() -> Registry<u32, ()> {
        Registry::new("storage")
            .with(BackendDef::new("one", "gives 1", |_, ()| Ok(Prepared::new(|| async { Ok(1) }))))
            .with(BackendDef::compiled_out("two", "gives 2", "storage-two"))
    }

    #[tokio::test]
    async fn a_known_kind_is_prepared_and_built() {
        let prepared = registry().prepare("one", &section(), &()).expect("it is known");
        assert_eq!(prepared.build().await.unwrap(), 1);
    }

    #[test]
    fn an_unknown_kind_lists_those_that_there_are() {
        let problems = registry().prepare("three", &section(), &()).err().expect("it is unknown");
        assert_eq!(
            problems.to_string(),
            "storage.kind: unknown storage backend \"three\"; there are: one, two"
        );
    }

    #[test]
    fn a_kind_that_was_compiled_out_says_how_to_get_it() {
        let problems = registry().prepare("two", &section(), &()).err().expect("it is not in this build");
        assert!(problems.to_string().contains("--features storage-two"));
    }

    #[test]
    fn constraints_are_checked_by_count() {
        let mut problems = Problems::new();
        Constraint::ExactlyOne.check("storage", 1, &mut problems);
        Constraint::Any.check("providers", 0, &mut problems);
        assert!(problems.is_empty());
        Constraint::ExactlyOne.check("storage", 2, &mut problems);
        assert!(problems.to_string().contains("found 2"));
    }
}
