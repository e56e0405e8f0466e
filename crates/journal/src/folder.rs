use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::doing;
use crate::slots::{self, Slots};
use crate::{Files, JournalError, MAX_ENTRY, or_absent};

/// How much of a lock file is read.
const MAX_OWNER: u64 = 256;
/// What the name of an entry's file ends in that somebody gives to this folder.
const GIVEN: &str = ".entry";

/// A private folder whose changes are durable.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Open for syncing: a name in a folder is durable only when the folder is.
    handle: File,
    /// Locked until this is dropped: at the latest when the process ends, however it ends.
    _lock: File,
    /// The entries.
    slots: Slots,
    /// How many files were made for them.
    made: AtomicU64,
    /// How many of their names are durable.
    synced: Mutex<u64>,
}

impl Folder {
    /// Opens a folder for one process; gives the owner before, too.
    pub(crate) fn open(path: &Path, lock: &str, owner: &str) -> Result<(Self, String), JournalError> {
        let handle = create(path)?;
        let (lock, former) = take_lock(path, &handle, &path.join(lock), owner)?;
        let files = list(path)?;
        let slots = Slots::open(path, &files)?;
        for name in files.iter().filter_map(|file| file.strip_suffix(GIVEN)) {
            take_in(&slots, &handle, path, name)?;
        }
        Ok((
            Self {
                path: path.to_owned(),
                handle,
                _lock: lock,
                slots,
                made: AtomicU64::new(0),
                synced: Mutex::new(0),
            },
            former,
        ))
    }

    fn sync(&self) -> Result<(), JournalError> {
        sync(&self.handle, &self.path)
    }

    /// Makes the name of a file that was just made durable. Many writers at once share one call: whoever waited for another's
    /// that began after his file was made needs none of his own.
    fn sync_with_others(&self) -> Result<(), JournalError> {
        let mine = self.made.fetch_add(1, Ordering::SeqCst) + 1;
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        if *synced < mine {
            let made = self.made.load(Ordering::SeqCst);
            self.sync()?;
            *synced = made;
        }
        Ok(())
    }
}

/// Makes a file that somebody put there an entry. Twice, if this is cut off: that does no harm.
fn take_in(slots: &Slots, handle: &File, folder: &Path, name: &str) -> Result<(), JournalError> {
    let path = folder.join(format!("{name}{GIVEN}"));
    if !slots::is_name(name.as_bytes()) {
        return Ok(());
    }
    let Some(bytes) = read(&path, MAX_ENTRY + 1)? else { return Ok(()) };
    if slots.write(folder, name, &bytes)? {
        // Before the file goes, so that one of the two is there if the power fails.
        sync(handle, folder)?;
    }
    fs::remove_file(&path).map_err(doing("remove", &path))
}

fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, JournalError> {
    let Some(file) = or_absent(File::open(path)).map_err(doing("open", path))? else { return Ok(None) };
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(doing("read", path))?;
    Ok(Some(bytes))
}

fn list(path: &Path) -> Result<Vec<String>, JournalError> {
    let entries = fs::read_dir(path).map_err(doing("list", path))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect::<std::io::Result<_>>().map_err(doing("list", path))
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(path).map_err(doing("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(doing("write", path))
}

fn sync(handle: &File, path: &Path) -> Result<(), JournalError> {
    handle.sync_all().map_err(doing("sync the folder", path))
}

fn create(path: &Path) -> Result<File, JournalError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(doing("create the folder", path))?;
    let handle = File::open(path).map_err(doing("open the folder", path))?;
    let mode = handle.metadata().map_err(doing("open the folder", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        let private = fs::Permissions::from_mode(0o700);
        handle.set_permissions(private).map_err(doing("make private the folder", path))?;
    }
    Ok(handle)
}

/// Locks a file and writes its owner into it; returns the lock and the owner before.
fn take_lock(folder: &Path, handle: &File, path: &Path, owner: &str) -> Result<(File, String), JournalError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path).map_err(doing("open", path))?;
    let mut text = Vec::new();
    // The file stays open afterwards: closing it would give the lock up.
    let locked = file.try_lock();
    (&file).take(MAX_OWNER).read_to_end(&mut text).map_err(doing("read", path))?;
    let former = String::from_utf8_lossy(&text).trim().to_owned();
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(JournalError::InUse { path: folder.to_owned(), owner: former });
        }
        Err(TryLockError::Error(error)) => return Err(doing("lock", path)(error)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(doing("write", path))?;
    file.write_all(owner.as_bytes()).and_then(|()| file.sync_all()).map_err(doing("write", path))?;
    sync(handle, folder)?;
    Ok((file, former))
}

impl Files for Folder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, entry: &str, bytes: &[u8]) -> Result<(), JournalError> {
        if self.slots.write(&self.path, entry, bytes)? {
            self.sync_with_others()?;
        }
        Ok(())
    }

    fn prepare(&self, count: usize) -> Result<(), JournalError> {
        self.slots.prepare(&self.path, count, || self.sync())
    }

    fn entries(&self) -> Result<Vec<String>, JournalError> {
        Ok(self.slots.names())
    }

    fn entry(&self, entry: &str, limit: usize) -> Result<Option<Vec<u8>>, JournalError> {
        self.slots.read(entry, limit)
    }

    fn remove(&self, entry: &str) -> Result<bool, JournalError> {
        self.slots.remove(entry)
    }

    fn put_aside(&self, entry: &str, name: &str) -> Result<bool, JournalError> {
        let Some(bytes) = self.slots.read(entry, usize::MAX)? else { return Ok(false) };
        write_durably(&self.path.join(name), &bytes)?;
        self.sync()?;
        self.slots.remove(entry)
    }

    fn replace(&self, partial: &str, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        let partial = self.path.join(partial);
        write_durably(&partial, bytes)?;
        fs::rename(&partial, self.path.join(name)).map_err(doing("rename", &partial))?;
        self.sync()
    }

    fn file(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, JournalError> {
        read(&self.path.join(name), limit)
    }
}
