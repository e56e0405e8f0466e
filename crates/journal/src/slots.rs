//! Entries in files that are used again. Making a file durable takes the file system several writes to the disk, and its removal
//! some more; overwriting one that has its blocks takes one. So the files of entries that went are kept for the next ones.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::JournalError;
use crate::error::doing;

/// What the name of a slot's file ends in.
const SLOT: &str = ".slot";
/// How long a new slot is: a vendor's tokens, sealed twice and in letters, fit in.
const LENGTH: usize = 16 * 1024;
/// What a slot that holds an entry begins with; one that is free begins with zeros.
const MAGIC: [u8; 4] = *b"TWJ1";
/// The magic, the length of the name, the length of the entry.
const HEADER: usize = 4 + 2 + 4;
/// The longest name.
const MAX_NAME: usize = 64;
/// How many files are kept open, and how many are kept for entries that may come. After an outage there can be many more.
const KEPT: usize = 256;

/// Whether this can be an entry's name. It becomes part of a file's when the entry is put aside.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && name.iter().all(u8::is_ascii_alphanumeric)
}

fn file_of(number: u64) -> String {
    format!("{number:08}{SLOT}")
}

/// One file.
#[derive(Debug)]
struct Slot {
    path: PathBuf,
    /// `None` for one that is opened when it is needed, and not used again.
    file: Option<File>,
}

#[derive(Debug, Default)]
struct State {
    used: HashMap<String, Arc<Slot>>,
    free: Vec<Slot>,
    /// The number of the next slot that is made.
    next: u64,
}

/// The slots of one folder.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<State>);

impl Slots {
    /// Reads what the folder holds.
    pub(crate) fn open(folder: &Path, files: &[String]) -> Result<Self, JournalError> {
        let mut state = State::default();
        for name in files {
            // The number of one that was put aside, damaged, is not given again.
            let number = name.split('.').next().and_then(|stem| stem.parse().ok());
            state.next = state.next.max(number.unwrap_or(0));
            let Some(stem) = name.strip_suffix(SLOT) else { continue };
            let path = folder.join(name);
            let slot = Slot { path, file: None };
            match slot.name()? {
                Held::Free => state.free_or_remove(slot.opened()?)?,
                Held::Named(name) => drop(state.used.insert(name, Arc::new(slot))),
                // It goes by its file's name.
                Held::Damaged => drop(state.used.insert(stem.to_owned(), Arc::new(slot))),
            }
        }
        Ok(Self(Mutex::new(state)))
    }

    /// Makes files for so many entries ahead of time; `sync` makes their names durable.
    pub(crate) fn prepare(
        &self,
        folder: &Path,
        count: usize,
        sync: impl FnOnce() -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let numbers = {
            let mut state = self.state();
            let first = state.next + 1;
            let missing = count.min(KEPT).saturating_sub(state.free.len());
            state.next += u64::try_from(missing).unwrap_or(0);
            first..=state.next
        };
        let slots = numbers.map(|number| Slot::create(folder.join(file_of(number))));
        // Before any is synced, so that the file system does it for all of them at once.
        let slots = slots.collect::<Result<Vec<_>, _>>()?;
        slots.iter().try_for_each(Slot::sync)?;
        sync()?;
        self.state().free.extend(slots);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry, durable when this returns. `true` when a file had to be made for it, whose name is not durable yet.
    pub(crate) fn write(&self, folder: &Path, name: &str, bytes: &[u8]) -> Result<bool, JournalError> {
        let (free, number) = {
            let mut state = self.state();
            let free = state.free.pop();
            state.next += u64::from(free.is_none());
            (free, state.next)
        };
        let is_new = free.is_none();
        let mut slot = match free {
            Some(slot) => slot,
            None => Slot::create(folder.join(file_of(number)))?,
        };
        if is_new {
            slot.sync()?;
        }
        // One that could not be written is not used again.
        slot.write(name, bytes)?;
        let mut state = self.state();
        if state.used.len() >= KEPT {
            slot.file = None;
        }
        state.used.insert(name.to_owned(), Arc::new(slot));
        Ok(is_new)
    }

    /// The names of the entries.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state().used.keys().cloned().collect()
    }

    /// The first `limit` bytes of an entry.
    pub(crate) fn read(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, JournalError> {
        let slot = self.state().used.get(name).cloned();
        slot.map(|slot| slot.entry(limit)).transpose()
    }

    /// Frees an entry's slot; `false` when there is no such entry. Where the power fails, it may be there again.
    pub(crate) fn remove(&self, name: &str) -> Result<bool, JournalError> {
        let Some(slot) = self.state().used.remove(name) else { return Ok(false) };
        slot.write_at(&[0; HEADER], 0)?;
        // Somebody may be reading it still.
        match Arc::try_unwrap(slot) {
            Ok(slot) => self.state().free_or_remove(slot)?,
            Err(slot) => slot.remove()?,
        }
        Ok(true)
    }
}

impl State {
    fn free_or_remove(&mut self, slot: Slot) -> Result<(), JournalError> {
        if slot.file.is_none() || self.free.len() >= KEPT {
            return slot.remove();
        }
        self.free.push(slot);
        Ok(())
    }
}

/// What a slot holds.
enum Held {
    Free,
    Named(String),
    Damaged,
}

impl Slot {
    fn open(&self) -> Result<File, JournalError> {
        OpenOptions::new().read(true).write(true).open(&self.path).map_err(doing("open", &self.path))
    }

    fn opened(self) -> Result<Self, JournalError> {
        Ok(Self { file: Some(self.open()?), ..self })
    }

    fn remove(&self) -> Result<(), JournalError> {
        fs::remove_file(&self.path).map_err(doing("remove", &self.path))
    }

    fn with<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<T, JournalError> {
        let done = match &self.file {
            Some(file) => work(file),
            None => work(&self.open()?),
        };
        done.map_err(doing(action, &self.path))
    }

    /// Makes a slot that has its blocks.
    fn create(path: PathBuf) -> Result<Self, JournalError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(doing("create", &path))?;
        let slot = Self { file: Some(file), path };
        slot.write_at(&[0; LENGTH], 0)?;
        Ok(slot)
    }

    fn sync(&self) -> Result<(), JournalError> {
        self.with("write", File::sync_all)
    }

    fn write_at(&self, bytes: &[u8], offset: usize) -> Result<(), JournalError> {
        let offset = u64::try_from(offset).unwrap_or(u64::MAX);
        self.with("write", |file| file.write_all_at(bytes, offset))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), JournalError> {
        let mut text = Vec::with_capacity(HEADER + name.len() + bytes.len());
        text.extend(MAGIC);
        text.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        text.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        text.extend(name.as_bytes());
        text.extend(bytes);
        self.write_at(&text, 0)?;
        self.with("write", File::sync_data)
    }

    fn read_at(&self, offset: usize, length: usize) -> Result<Vec<u8>, JournalError> {
        self.with("read", |file| {
            let mut bytes = Vec::new();
            let mut part = [0; LENGTH];
            while bytes.len() < length {
                let wanted = (length - bytes.len()).min(LENGTH);
                let at = u64::try_from(offset + bytes.len()).unwrap_or(u64::MAX);
                match file.read_at(&mut part[..wanted], at)? {
                    0 => break,
                    count => bytes.extend(&part[..count]),
                }
            }
            Ok(bytes)
        })
    }

    /// The lengths of the name and of the entry; `None` when it is free.
    fn lengths(&self) -> Result<Option<(usize, usize)>, JournalError> {
        let header = self.read_at(0, HEADER)?;
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let lengths = header.strip_prefix(&MAGIC).and_then(|lengths| {
            let (name, entry) = lengths.split_at_checked(2)?;
            let name = u16::from_le_bytes(name.try_into().ok()?);
            let entry = u32::from_le_bytes(entry.try_into().ok()?);
            Some((name.into(), usize::try_from(entry).ok()?))
        });
        Ok(Some(lengths.unwrap_or((0, usize::MAX))))
    }

    fn name(&self) -> Result<Held, JournalError> {
        let Some((length, _)) = self.lengths()? else { return Ok(Held::Free) };
        let name = self.read_at(HEADER, length.min(MAX_NAME + 1))?;
        if name.len() < length || !is_name(&name) {
            return Ok(Held::Damaged);
        }
        Ok(String::from_utf8(name).map_or(Held::Damaged, Held::Named))
    }

    /// The first `limit` bytes of the entry; of one that is damaged, of all there is.
    fn entry(&self, limit: usize) -> Result<Vec<u8>, JournalError> {
        match self.lengths()? {
            Some((name, length)) if length < usize::MAX => self.read_at(HEADER + name, length.min(limit)),
            _ => self.read_at(0, limit),
        }
    }
}
