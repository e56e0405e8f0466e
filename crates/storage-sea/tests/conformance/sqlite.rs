use std::os::unix::fs::PermissionsExt;

use sea_orm::sqlx::{Connection, Executor, SqliteConnection};
use serde_json::json;
use tokenward_storage::{ConsumeOutcome, SchemaStatus};
use tokenward_storage_sea::sqlite;
use tokenward_types::Timestamp;

use crate::fixtures::{SqliteFile, build};
use crate::outages::tenant;

#[tokio::test]
async fn a_second_process_on_the_file_is_refused_by_name() {
    let file = SqliteFile::new();
    let first = file.try_open(true).await.expect("the file is free");
    let error = file.try_open(true).await.err().expect("the first one holds it").to_string();
    assert!(error.contains("tokenward.db is in use by another process"), "{error}");
    assert!(error.contains("tokenward.db.lock"), "{error}");
    drop(first);
    file.try_open(true).await.expect("the file is free again");
}

#[tokio::test]
async fn another_name_of_the_file_does_not_get_around_the_lock() {
    let file = SqliteFile::new();
    let _first = file.try_open(true).await.expect("the file is free");
    let link = file.path().with_file_name("other.db");
    std::os::unix::fs::symlink(file.path(), &link).expect("a link");
    let error = build(sqlite(), json!({"path": link}), true).await.err().expect("it is the same file");
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[tokio::test]
async fn a_short_command_works_beside_a_server() {
    let file = SqliteFile::new();
    let server = file.try_open(true).await.expect("the file is free");
    server.migrate().await.expect("the schema is made");
    let command = file.try_open(false).await.expect("it takes no lock");
    assert_eq!(command.schema_status().await.unwrap(), SchemaStatus::Current);
    let id = command.installation_id("of the command").await.unwrap();
    assert_eq!(server.installation_id("of the server").await.unwrap(), id);
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    let file = SqliteFile::new();
    let storage = file.try_open(true).await.expect("the file is free");
    storage.migrate().await.expect("the schema is made");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(file.path().parent().expect("a folder")).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    let expected = ["tokenward.db", "tokenward.db-shm", "tokenward.db-wal", "tokenward.db.lock"];
    assert_eq!(names, expected, "the log is a write-ahead log");
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let error = build(sqlite(), json!({"path": "/nonexistent/folder/x.db"}), true).await.err();
    let error = error.expect("there is no such folder").to_string();
    assert!(error.contains("/nonexistent/folder/x.db") && error.contains("folder exists"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let file = SqliteFile::new();
    std::fs::write(file.path(), "this is a text of some length, and certainly not a database\n".repeat(50))
        .unwrap();
    let error = file.try_open(true).await.err().expect("it is a text").to_string();
    assert!(error.contains("tokenward.db is not a SQLite database"), "{error}");
}

#[tokio::test]
async fn a_file_is_opened_once_more_for_the_background_and_memory_is_not() {
    let file = SqliteFile::new();
    let on_disk = build(sqlite(), json!({"path": file.path()}), true).await.unwrap();
    assert!(on_disk.in_background().await.unwrap().is_some());
    let in_memory = build(sqlite(), json!({"in_memory": true}), true).await.unwrap();
    assert!(in_memory.in_background().await.unwrap().is_none());
}

#[tokio::test]
async fn work_in_the_background_keeps_the_log_short() {
    let file = SqliteFile::new();
    let storage = file.try_open(true).await.expect("the file is free");
    storage.migrate().await.expect("the schema is made");
    let background = storage.in_background().await.unwrap().expect("a file is opened once more");
    let log = || std::fs::metadata(file.path().with_file_name("tokenward.db-wal")).expect("a log").len();
    // A page and what comes before it in the log (sqlite.org/fileformat.html#walformat).
    let pages = |count: u64| count * (4096 + 24);
    let before = log();
    for number in 0..200 {
        background.create_tenant(&tenant(&format!("background-{number}"))).await.unwrap();
    }
    assert!(log() <= before.max(pages(200)), "{} after {before}", log());
    for number in 0..200 {
        storage.create_tenant(&tenant(&format!("caller-{number}"))).await.unwrap();
    }
    assert!(log() > pages(400), "callers do not stop to empty it so soon: {}", log());
}

#[tokio::test]
async fn databases_in_memory_are_apart() {
    let one = build(sqlite(), json!({"in_memory": true}), true).await.unwrap();
    let two = build(sqlite(), json!({"in_memory": true}), true).await.unwrap();
    one.migrate().await.unwrap();
    assert!(matches!(two.schema_status().await.unwrap(), SchemaStatus::Behind(_)));
}

#[tokio::test]
async fn a_state_that_cannot_be_accepted_waits_for_no_write() {
    let file = SqliteFile::new();
    let values = json!({"path": file.path(), "busy_timeout": "10ms"});
    let storage = build(sqlite(), values, false).await.expect("the file opens");
    storage.migrate().await.expect("the schema is made");
    let url = format!("sqlite:{}", file.path().display());
    let mut writer = SqliteConnection::connect(&url).await.expect("the file is there");
    writer.execute("BEGIN IMMEDIATE").await.expect("nobody else writes");
    let consumed = storage.consume_connect_attempt(&[1; 32], &[2; 32], Timestamp::from_secs(1)).await;
    assert_eq!(consumed.unwrap(), ConsumeOutcome::Unknown);
}
