//! A folder in which results wait for the database: a file for each, durable before the writer goes on.
//!
//! What stands in an entry is the caller's; it comes sealed, and this crate neither opens nor judges it. Everything here
//! blocks: callers on an async runtime use a blocking thread.
//!
//! | file | what |
//! |---|---|
//! | `lock` | names the process that holds the folder; locked while it lives |
//! | `NUMBER.slot` | holds a result that waits, with its name, or zeros: it is kept for the next one |
//! | `NAME.entry` | one that was put there; it is taken in when the folder is opened |
//! | `NAME.refused` | one that could not be read; nothing here deletes it |
//! | `mark` | a number that the caller keeps: see [`Journal::mark`] |

mod error;
mod folder;
mod memory;
mod slots;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

pub use error::JournalError;
pub use memory::MemoryFolder;

use folder::Folder;
use memory::Held;

/// The longest entry in bytes: many times what a vendor's tokens take.
pub const MAX_ENTRY: usize = 256 * 1024;
/// How many entries may wait: an outage of minutes with hundreds of refreshes a second.
pub const MAX_ENTRIES: usize = 100_000;

const LOCK: &str = "lock";
const MARK: &str = "mark";

/// The entries of one folder, for one process.
#[derive(Debug)]
pub struct Journal {
    files: Box<dyn Files>,
    former_owner: Option<String>,
    entries: AtomicUsize,
}

/// Where the files are.
trait Files: std::fmt::Debug + Send + Sync {
    fn path(&self) -> &Path;
    /// Writes an entry, durable when this returns.
    fn write(&self, entry: &str, bytes: &[u8]) -> Result<(), JournalError>;
    /// Makes ready for so many entries.
    fn prepare(&self, count: usize) -> Result<(), JournalError>;
    /// The names of the entries.
    fn entries(&self) -> Result<Vec<String>, JournalError>;
    /// The first `limit` bytes of an entry; `None` when there is none.
    fn entry(&self, entry: &str, limit: usize) -> Result<Option<Vec<u8>>, JournalError>;
    /// Removes an entry; `false` when there is none. After a failure of the power it may be there again.
    fn remove(&self, entry: &str) -> Result<bool, JournalError>;
    /// Makes an entry a file of this name; `false` when there is none.
    fn put_aside(&self, entry: &str, name: &str) -> Result<bool, JournalError>;
    /// Puts a file in another's place whole and durably, by way of another name.
    fn replace(&self, partial: &str, name: &str, bytes: &[u8]) -> Result<(), JournalError>;
    /// The first `limit` bytes of a file; `None` when there is none.
    fn file(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, JournalError>;
}

impl Journal {
    /// Opens the folder for `owner`, which names this process, and creates what is missing of it (mode 0700, files 0600).
    ///
    /// # Errors
    /// `InUse` when another process holds it; `Io`, naming the path.
    pub fn open(path: &Path, owner: &str) -> Result<Self, JournalError> {
        let (folder, former) = Folder::open(path, LOCK, owner)?;
        let journal = Self::of(Box::new(folder), former);
        journal.entries.store(journal.names()?.len(), Ordering::SeqCst);
        Ok(journal)
    }

    /// A journal that lasts as long as `folder`, for tests; takes it from whoever held it.
    pub fn in_memory(folder: &MemoryFolder, owner: &str) -> Self {
        let (held, former) = Held::take(folder, owner);
        Self::of(Box::new(held), former)
    }

    fn of(files: Box<dyn Files>, former: String) -> Self {
        let former_owner = Some(former).filter(|former| !former.is_empty());
        Self { files, former_owner, entries: AtomicUsize::new(0) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// Who held the folder before. That process is certainly gone: its lock was free.
    pub fn former_owner(&self) -> Option<&str> {
        self.former_owner.as_deref()
    }

    /// Makes an entry durable: when this returns, it outlives the process and the machine's power. Names are the
    /// caller's to keep apart.
    ///
    /// # Errors
    /// `TooLong`, `Full`, `Io`: nothing was promised.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        if bytes.len() > MAX_ENTRY {
            return Err(JournalError::TooLong { length: bytes.len() });
        }
        // Counted ahead, so that many writers at once stay below the limit.
        if self.entries.fetch_add(1, Ordering::SeqCst) >= MAX_ENTRIES {
            self.entries.fetch_sub(1, Ordering::SeqCst);
            return Err(JournalError::Full { path: self.path().to_owned() });
        }
        let written = self.files.write(name, bytes);
        if written.is_err() {
            self.entries.fetch_sub(1, Ordering::SeqCst);
        }
        written
    }

    /// Makes ready for so many entries at once, so that the first of them are written as quickly as later ones.
    ///
    /// # Errors
    /// `Io`: entries are written all the same, if they can be.
    pub fn prepare(&self, count: usize) -> Result<(), JournalError> {
        self.files.prepare(count)
    }

    /// Whether working with it never blocks.
    pub fn is_in_memory(&self) -> bool {
        self.files.path() == Path::new(memory::PATH)
    }

    /// The entries, in order of their names.
    ///
    /// # Errors
    /// `Io`.
    pub fn names(&self) -> Result<Vec<String>, JournalError> {
        let mut names = self.files.entries()?;
        names.sort();
        Ok(names)
    }

    /// An entry's bytes; of one longer than [`MAX_ENTRY`] only so many that it shows. `None` when there is none.
    ///
    /// # Errors
    /// `Io`.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, JournalError> {
        self.files.entry(name, MAX_ENTRY + 1)
    }

    /// Removes an entry whose result is stored. Repeating it changes nothing. Where the machine's power fails, it may be
    /// there again, and is offered to the database again, which does no harm.
    ///
    /// # Errors
    /// `Io`: it is there still.
    pub fn remove(&self, name: &str) -> Result<(), JournalError> {
        if self.files.remove(name)? {
            self.entries.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Puts an entry aside that cannot be read, and tells where it is now.
    ///
    /// # Errors
    /// `Io`.
    pub fn refuse(&self, name: &str) -> Result<PathBuf, JournalError> {
        let aside = format!("{name}.refused");
        if self.files.put_aside(name, &aside)? {
            self.entries.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(self.path().join(aside))
    }

    /// The number that was kept last; `None` when none was, or what stands there is no number.
    ///
    /// # Errors
    /// `Io`.
    pub fn mark(&self) -> Result<Option<i64>, JournalError> {
        let bytes = self.files.file(MARK, 64)?;
        Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok()))
    }

    /// Keeps a number in place of the one before, durably.
    ///
    /// # Errors
    /// `Io`.
    pub fn set_mark(&self, mark: i64) -> Result<(), JournalError> {
        self.files.replace("mark.new", MARK, mark.to_string().as_bytes())
    }
}

/// `Ok(None)` for what is not there.
fn or_absent<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
