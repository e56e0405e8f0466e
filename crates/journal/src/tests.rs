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
    journal.prepare(3).unwrap();
    journal.write("01", b"first").unwrap();
    journal.set_mark(7).unwrap();
    assert_eq!(mode(&path), 0o700);
    for file in ["00000001.slot", "00000003.slot", "lock", "mark"] {
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

/// The files of slots that are not free.
fn used(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let slots = files.filter(|path| path.extension().is_some_and(|kind| kind == "slot"));
    slots.filter(|path| !fs::read(path).unwrap().starts_with(&[0; 10])).collect()
}

#[test]
fn what_was_damaged_is_there_still_and_can_be_kept_aside() {
    type Damage = fn(&mut Vec<u8>);
    let cases: [(&str, Damage); 6] = [
        ("cut off within the entry", |bytes| bytes.truncate(15)),
        ("cut off within the name", |bytes| bytes.truncate(11)),
        ("cut off within the header", |bytes| bytes.truncate(3)),
        ("another kind of file", |bytes| bytes[0] ^= 1),
        ("a name that leads elsewhere", |bytes| bytes[10..12].copy_from_slice(b"./")),
        ("no name", |bytes| bytes[4] = 0),
    ];
    for (what, damage) in cases {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), "one").unwrap();
        journal.write("01", b"first").unwrap();
        journal.write("02", b"second").unwrap();
        drop(journal);
        fs::write(folder.path().join("readme.txt"), b"not ours").unwrap();
        let of_first = |path: &PathBuf| fs::read(path).unwrap()[10..12] == *b"01";
        let slot = used(folder.path()).into_iter().find(of_first).unwrap();
        let mut bytes = fs::read(&slot).unwrap();
        damage(&mut bytes);
        fs::write(&slot, bytes).unwrap();

        let journal = Journal::open(folder.path(), "two").unwrap();
        let names = journal.names().unwrap();
        assert_eq!(names.len(), 2, "{what}: {names:?}");
        assert_eq!(journal.read("02").unwrap().unwrap(), b"second", "{what}");
        let damaged = names.iter().find(|name| *name != "02").unwrap();
        let read = journal.read(damaged).unwrap().unwrap();
        assert!(
            damaged != "01" || read != b"first",
            "{what}: what is sealed shows it by its name or by itself"
        );
        let aside = journal.refuse(damaged).unwrap();
        assert_eq!(aside, folder.path().join(format!("{damaged}.refused")), "{what}");
        assert!(aside.exists() && folder.path().join("readme.txt").exists(), "{what}");
        drop(journal);
        let journal = Journal::open(folder.path(), "three").unwrap();
        assert_eq!(journal.names().unwrap(), ["02"], "{what}");
    }
}

#[test]
fn a_file_that_is_given_back_becomes_an_entry() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("01.entry"), b"first").unwrap();
    fs::write(folder.path().join("not-a-name.entry"), b"other").unwrap();
    let journal = Journal::open(folder.path(), "one").unwrap();
    assert_eq!(journal.names().unwrap(), ["01"]);
    assert_eq!(journal.read("01").unwrap().unwrap(), b"first");
    assert!(!folder.path().join("01.entry").exists());
    journal.refuse("01").unwrap();
    drop(journal);
    fs::rename(folder.path().join("01.refused"), folder.path().join("01.entry")).unwrap();
    let journal = Journal::open(folder.path(), "two").unwrap();
    assert_eq!(journal.read("01").unwrap().unwrap(), b"first");
}

#[test]
fn files_of_entries_that_went_are_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), "one").unwrap();
    let files = || fs::read_dir(folder.path()).unwrap().count();
    journal.prepare(2).unwrap();
    journal.prepare(1).unwrap();
    let before = files();
    assert_eq!(before, 1 + 2, "the lock and what was made ready");
    let long = vec![7; MAX_ENTRY];
    for round in 0..40 {
        let name = format!("{round:02}");
        journal.write(&name, if round % 2 == 0 { &long } else { b"short" }).unwrap();
        assert_eq!(journal.read(&name).unwrap().unwrap().len(), if round % 2 == 0 { MAX_ENTRY } else { 5 });
        journal.remove(&name).unwrap();
    }
    assert_eq!(files(), before);
    drop(journal);
    assert!(Journal::open(folder.path(), "two").unwrap().names().unwrap().is_empty());
}

#[test]
fn many_entries_at_once_are_all_there_and_their_files_do_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), "one").unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..100 {
                    journal.write(&format!("{writer}{number:03}"), &[writer; 9]).unwrap();
                }
            });
        }
    });
    drop(journal);
    let journal = Journal::open(folder.path(), "two").unwrap();
    let names = journal.names().unwrap();
    assert_eq!(names.len(), 800);
    for name in &names {
        assert_eq!(journal.read(name).unwrap().unwrap(), [name.as_bytes()[0] - b'0'; 9]);
        journal.remove(name).unwrap();
    }
    assert!(used(folder.path()).is_empty());
    assert!(fs::read_dir(folder.path()).unwrap().count() < 300);
}

#[test]
fn entries_are_limited_in_length_and_number() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), "one").unwrap();
    let long = vec![0; MAX_ENTRY + 1];
    assert!(matches!(journal.write("01", &long), Err(JournalError::TooLong { .. })));
    drop(journal);
    let mut slot = b"TWJ1\x02\x00\x01\x00\x04\x0002".to_vec();
    slot.extend(&long);
    fs::write(folder.path().join("00000099.slot"), &slot).unwrap();
    let journal = Journal::open(folder.path(), "one").unwrap();
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
