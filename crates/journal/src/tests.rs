use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_entry_outlives_the_process_and_goes_when_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/journal");
    let journal = Journal::open(&path, "one").unwrap();
    journal.write("02", b"second").unwrap();
    journal.write("01", b"first").unwrap();
    drop(journal);
    let journal = Journal::open(&path, "two").unwrap();
    assert_eq!(journal.former_owner(), Some("one"));
    assert_eq!(journal.names().unwrap(), ["01", "02"]);
    assert_eq!(journal.read("01").unwrap().unwrap(), b"first");
    journal.remove("01").unwrap();
    journal.remove("01").unwrap();
    assert_eq!(journal.names().unwrap(), ["02"]);
    assert_eq!(journal.read("01").unwrap(), None);
}

#[test]
fn folder_and_files_are_private_whatever_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let journal = Journal::open(&path, "one").unwrap();
    journal.write("01", b"first").unwrap();
    journal.set_mark(7).unwrap();
    assert_eq!(mode(&path), 0o700);
    for file in ["01.entry", "lock", "mark"] {
        assert_eq!(mode(&path.join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_second_process_is_refused_and_told_whose_the_folder_is() {
    let folder = tempfile::tempdir().unwrap();
    let first = Journal::open(folder.path(), "one").unwrap();
    let refused = Journal::open(folder.path(), "two").unwrap_err().to_string();
    assert!(refused.contains("one") && refused.contains("a journal folder of its own"), "{refused}");
    drop(first);
    assert_eq!(Journal::open(folder.path(), "two").unwrap().former_owner(), Some("one"));
}

#[test]
fn writing_that_was_cut_off_is_read_and_what_cannot_be_read_is_kept_aside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("01.entry"), b"fir").unwrap();
    fs::write(folder.path().join("readme.txt"), b"not ours").unwrap();
    let journal = Journal::open(folder.path(), "one").unwrap();
    assert_eq!(journal.names().unwrap(), ["01"]);
    assert_eq!(journal.read("01").unwrap().unwrap(), b"fir");
    let aside = journal.refuse("01").unwrap();
    assert_eq!(aside, folder.path().join("01.refused"));
    assert_eq!(fs::read(aside).unwrap(), b"fir");
    assert!(journal.names().unwrap().is_empty());
    assert!(folder.path().join("readme.txt").exists());
}

#[test]
fn entries_are_limited_in_length_and_number() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), "one").unwrap();
    let long = vec![0; MAX_ENTRY + 1];
    assert!(matches!(journal.write("01", &long), Err(JournalError::TooLong { .. })));
    fs::write(folder.path().join("02.entry"), &long).unwrap();
    assert_eq!(journal.read("02").unwrap().unwrap().len(), MAX_ENTRY + 1, "too long, and shows it");
    journal.entries.store(MAX_ENTRIES, Ordering::SeqCst);
    let full = journal.write("03", b"x").unwrap_err().to_string();
    assert!(full.contains("is full"), "{full}");
    journal.remove("02").unwrap();
    journal.write("03", b"x").unwrap();
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Journal::open(&file, "one").unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
}

#[test]
fn the_mark_is_the_last_one_that_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), "one").unwrap();
    assert_eq!(journal.mark().unwrap(), None);
    journal.set_mark(1).unwrap();
    journal.set_mark(i64::MAX).unwrap();
    assert_eq!(journal.mark().unwrap(), Some(i64::MAX));
    fs::write(folder.path().join("mark"), b"x").unwrap();
    assert_eq!(journal.mark().unwrap(), None);
}

#[test]
fn a_folder_in_memory_does_as_one_on_disk_and_has_one_holder() {
    let folder = MemoryFolder::default();
    let first = Journal::in_memory(&folder, "one");
    first.write("01", b"first").unwrap();
    first.write("02", b"second").unwrap();
    first.set_mark(7).unwrap();
    let second = Journal::in_memory(&folder, "two");
    assert_eq!(second.former_owner(), Some("one"));
    assert!(first.write("03", b"x").is_err() && first.names().is_err());
    assert_eq!(second.names().unwrap(), ["01", "02"]);
    assert_eq!(second.read("01").unwrap().unwrap(), b"first");
    second.remove("01").unwrap();
    second.refuse("02").unwrap();
    assert_eq!(folder.files(), ["02.refused"]);
    assert_eq!(second.mark().unwrap(), Some(7));
    folder.cut_off();
    assert!(second.names().is_err());
}
