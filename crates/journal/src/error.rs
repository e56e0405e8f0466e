use std::io;
use std::path::{Path, PathBuf};

/// Why the journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another process works with the folder.
    #[error(
        "{path} is the journal of another running server ({owner}): give each server a journal folder of its own"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who holds it, as it names itself.
        owner: String,
    },
    /// The entry is longer than any vendor's tokens.
    #[error("an entry of {length} bytes is too long for the journal")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Too many entries wait.
    #[error("the journal {path} is full: {max} results wait in it", max = crate::MAX_ENTRIES)]
    Full {
        /// The folder.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Puts what was tried to an error of the file system.
pub(crate) fn doing<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> JournalError + 'a {
    move |source| JournalError::Io { action, path: path.to_owned(), source }
}
