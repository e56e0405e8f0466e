//! What every backend says of a data key that it cannot unwrap: which key, what is wrong, and the remedy. The backend's own name
//! goes before it.

use std::fmt;

/// That authentication failed. `remedy` brings the right key back where the key is another one.
#[must_use]
pub fn does_not_open(data_key: i32, kek: &str, remedy: impl fmt::Display) -> String {
    format!(
        "data key {data_key} does not open with {kek}: another key under the same name, or a ciphertext that was altered, \
         moved or replaced. If the key is another one, {remedy}; else restore the data key's row from a backup of the \
         database"
    )
}

/// That what is stored, or what came out of it, is no data key: `what` says why.
#[must_use]
pub fn no_data_key(data_key: i32, kek: &str, what: impl fmt::Display) -> String {
    format!(
        "data key {data_key}, wrapped by {kek}, cannot be unwrapped: {what}. Restore the data key's row from a backup of \
         the database"
    )
}
