use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::doing;
use crate::{Files, JournalError};

/// What stands in place of a path.
pub(crate) const PATH: &str = "memory";
const ENTRY: &str = ".entry";

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    owner: String,
    /// Counts the holders; only the newest one's calls succeed.
    holders: u64,
}

/// A folder in memory, which outlives the journals on it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryFolder(Arc<Mutex<State>>);

impl MemoryFolder {
    /// Whoever holds it can do nothing with it any more, as if its process had ended.
    pub fn cut_off(&self) {
        self.state().holders += 1;
    }

    /// The names of the entries' files.
    pub fn files(&self) -> Vec<String> {
        let state = self.state();
        state.files.keys().filter(|name| *name != crate::MARK).cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A holder's way to the folder.
#[derive(Debug)]
pub(crate) struct Held {
    folder: MemoryFolder,
    number: u64,
}

impl Held {
    pub(crate) fn take(folder: &MemoryFolder, owner: &str) -> (Self, String) {
        let mut state = folder.state();
        state.holders += 1;
        let number = state.holders;
        let former = std::mem::replace(&mut state.owner, owner.to_owned());
        drop(state);
        (Self { folder: folder.clone(), number }, former)
    }

    fn state(&self, action: &'static str) -> Result<MutexGuard<'_, State>, JournalError> {
        let state = self.folder.state();
        if state.holders == self.number {
            return Ok(state);
        }
        Err(doing(action, Path::new(PATH))(std::io::Error::other("somebody else holds it")))
    }
}

impl Files for Held {
    fn path(&self) -> &Path {
        Path::new(PATH)
    }

    fn write(&self, entry: &str, bytes: &[u8]) -> Result<(), JournalError> {
        self.state("write")?.files.insert(format!("{entry}{ENTRY}"), bytes.to_vec());
        Ok(())
    }

    fn prepare(&self, _count: usize) -> Result<(), JournalError> {
        Ok(())
    }

    fn entries(&self) -> Result<Vec<String>, JournalError> {
        let state = self.state("list")?;
        Ok(state.files.keys().filter_map(|name| name.strip_suffix(ENTRY)).map(str::to_owned).collect())
    }

    fn entry(&self, entry: &str, limit: usize) -> Result<Option<Vec<u8>>, JournalError> {
        self.file(&format!("{entry}{ENTRY}"), limit)
    }

    fn remove(&self, entry: &str) -> Result<bool, JournalError> {
        Ok(self.state("remove")?.files.remove(&format!("{entry}{ENTRY}")).is_some())
    }

    fn put_aside(&self, entry: &str, name: &str) -> Result<bool, JournalError> {
        let mut state = self.state("rename")?;
        let Some(bytes) = state.files.remove(&format!("{entry}{ENTRY}")) else { return Ok(false) };
        state.files.insert(name.to_owned(), bytes);
        Ok(true)
    }

    fn replace(&self, _partial: &str, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        self.state("write")?.files.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn file(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, JournalError> {
        let state = self.state("read")?;
        Ok(state.files.get(name).map(|bytes| bytes.iter().take(limit).copied().collect()))
    }
}
