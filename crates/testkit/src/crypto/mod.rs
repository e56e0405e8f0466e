//! The conformance suite of key-encryption backends: the contract of [`KeyEncryption`], a case for each of its sentences.
//!
//! A backend's `tests/conformance.rs` gives a [`KeyEncryptionFixture`] and is one line more:
//!
//! ```ignore
//! tokenward_testkit::key_encryption_conformance!(local, fixture);
//! ```

pub mod cases;
#[cfg(test)]
mod controls;

use std::sync::Arc;

use async_trait::async_trait;
use tokenward_crypto::KeyEncryption;

/// A backend of one's own for a single test. A case asks for each state at most once, in the order in which they stand
/// here, and uses what it got before until it asks for the next: asking may change the real thing.
#[async_trait]
pub trait KeyEncryptionFixture: Send + Sync {
    /// The backend with one key.
    async fn backend(&self) -> Arc<dyn KeyEncryption>;

    /// Another instance with the same keys, as after a restart.
    async fn reopened(&self) -> Arc<dyn KeyEncryption>;

    /// The backend with a new key beside the old one, which the instances before see too.
    async fn rotated(&self) -> Arc<dyn KeyEncryption>;

    /// The backend with the new key alone: the old one was removed.
    async fn retired(&self) -> Arc<dyn KeyEncryption>;

    /// A backend of the same kind whose keys have the same names as those of [`Self::backend`], but are others.
    async fn foreign(&self) -> Arc<dyn KeyEncryption>;

    /// The remedies that the backend's messages about a key give.
    fn remedies(&self) -> Remedies;

    /// The secrets that [`Self::backend`] holds, such as keys or credentials, in every form in which it was given them: at
    /// least one.
    fn secrets(&self) -> Vec<Vec<u8>>;
}

/// What an operator does about a key, in words of the backend's messages.
#[derive(Clone, Copy, Debug)]
pub struct Remedies {
    /// About a key that is not here: each message about one holds one of these.
    pub unknown: &'static [&'static str],
    /// About a key that is not the one that wrapped.
    pub wrong: &'static str,
}

/// One named test per case of the contract, in a module `$name`. `$constructor` is an async function of the calling module
/// that takes the test's name (`&'static str`) and gives an `Option` of a
/// [`KeyEncryptionFixture`](crate::crypto::KeyEncryptionFixture): `None` when a part is missing, which it has reported. The
/// calling crate needs `tokio`.
#[macro_export]
macro_rules! key_encryption_conformance {
    ($name:ident, $constructor:ident) => {
        $crate::key_encryption_conformance!(@cases $name, $constructor,
            a_wrapped_key_unwraps_to_the_same_bytes,
            another_instance_with_the_same_keys_unwraps,
            the_same_key_wrapped_twice_differs,
            a_wrapped_key_does_not_show_the_data_key,
            every_altered_byte_is_refused,
            every_truncation_is_refused,
            an_extension_is_refused,
            another_installation_is_refused,
            another_scope_is_refused,
            another_data_key_id_is_refused,
            a_boundary_between_installation_and_scope_cannot_be_shifted,
            an_old_key_still_unwraps_after_a_rotation,
            the_newest_key_wraps_and_unwraps,
            the_named_key_wraps_and_not_the_newest,
            a_key_that_is_not_here_does_not_wrap,
            status_is_asked_anew_at_each_call,
            a_created_version_is_the_newest_or_the_remedy_is_told,
            a_removed_key_is_an_unknown_key,
            a_key_that_never_was_is_an_unknown_key,
            another_backends_key_is_an_unknown_key,
            another_key_of_the_same_name_is_refused,
            status_names_the_newest_key_and_every_available_one,
            every_kek_starts_with_the_kind,
            debug_shows_no_secret,
        );
    };
    (@cases $name:ident, $constructor:ident, $($case:ident,)+) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $case() {
                    let test = concat!(module_path!(), "::", stringify!($case));
                    if let Some(fixture) = super::$constructor(test).await {
                        $crate::crypto::cases::$case(&fixture).await;
                    }
                }
            )+
        }
    };
}
