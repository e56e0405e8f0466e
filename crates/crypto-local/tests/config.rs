//! What the configuration of the backend refuses, and how it says so.
#![expect(clippy::expect_used, reason = "a file that cannot be made fails its test")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use tokenward_crypto_local::{generate_key, local};
use tokenward_plugin::{Registry, Section};
use tokenward_types::ExposeSecret;

fn check(values: &Value) -> Result<(), String> {
    let Value::Object(values) = values.clone() else { panic!("a section is an object") };
    let section = Section { at: "encryption".into(), name: "encryption".into(), values };
    let registry = Registry::new("encryption").with(local());
    registry.prepare("local", &section, &()).map(drop).map_err(|problems| problems.to_string())
}

fn problem(values: &Value) -> String {
    check(values).expect_err("it is wrong")
}

fn key() -> String {
    generate_key(1).expose_secret().to_owned()
}

/// A file that only its owner reads; it goes with the folder.
fn file(folder: &tempfile::TempDir, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join("key");
    std::fs::write(&path, content).expect("the folder takes files");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    path
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

#[test]
fn a_key_is_taken_as_a_value_or_as_a_file() {
    let folder = folder();
    check(&json!({ "key": key() })).expect("a value is enough");
    check(&json!({ "key_file": file(&folder, key()) })).expect("a file is enough");
    check(&json!({ "key_file": file(&folder, format!("# made in May\n{}\n", key())) }))
        .expect("a file is enough");
}

#[test]
fn both_a_value_and_a_file_are_refused() {
    let folder = folder();
    let both = json!({ "key": key(), "key_file": file(&folder, key()) });
    assert_eq!(problem(&both), "encryption.key: give key or key_file, not both");
}

#[test]
fn neither_a_value_nor_a_file_is_refused() {
    assert_eq!(problem(&json!({})), "encryption.key: is missing: give key or key_file");
}

#[test]
fn an_unknown_option_is_refused() {
    let message = problem(&json!({ "key": key(), "keyfile": "x" }));
    assert!(message.contains("unknown field `keyfile`"), "{message}");
}

#[test]
fn an_absent_file_is_named() {
    let message = problem(&json!({ "key_file": "/no/such/key" }));
    assert!(message.starts_with("encryption.key_file: cannot read /no/such/key: "), "{message}");
}

#[test]
fn a_file_that_is_no_text_is_named() {
    let folder = folder();
    let path = file(&folder, [0xff, 0xfe]);
    let expected = format!("encryption.key_file: {} is not UTF-8 text", path.display());
    assert_eq!(problem(&json!({ "key_file": path })), expected);
}

#[test]
fn a_world_readable_file_is_refused_with_the_remedy() {
    let folder = folder();
    let path = file(&folder, key());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    let shown = path.display();
    assert_eq!(
        problem(&json!({ "key_file": path })),
        format!("encryption.key_file: {shown} is open to group or others (mode 0644): chmod 600 {shown}")
    );
}

#[test]
fn a_file_in_the_folder_that_systemd_names_may_show_group_bits() {
    const FILE: &str = "KEY_FILE_OF_THE_CHILD";
    // The environment belongs to a process, so that each answer is that of a child of its own: this test again.
    if let Some(path) = std::env::var_os(FILE) {
        let path = PathBuf::from(path);
        println!("<{}>", check(&json!({ "key_file": path })).err().unwrap_or_else(|| "taken".to_owned()));
        return;
    }
    let (folder, other) = (folder(), self::folder());
    let path = file(&folder, key());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).expect("it is ours");
    let answer = |credentials: Option<&std::path::Path>| {
        let mut child = std::process::Command::new(std::env::current_exe().expect("this program"));
        child.args(["--exact", "a_file_in_the_folder_that_systemd_names_may_show_group_bits", "--nocapture"]);
        child.env(FILE, &path).env_remove("CREDENTIALS_DIRECTORY");
        child.envs(credentials.map(|folder| ("CREDENTIALS_DIRECTORY", folder)));
        let output = child.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).expect("it is text");
        let (_, said) = said.split_once('<').expect("it answers");
        said.split_once('>').expect("it answers").0.to_owned()
    };
    let shown = path.display();
    let refused =
        format!("encryption.key_file: {shown} is open to group or others (mode 0440): chmod 600 {shown}");
    assert_eq!(answer(Some(folder.path())), "taken");
    assert_eq!(answer(Some(other.path())), refused);
    assert_eq!(answer(None), refused);
}

#[test]
fn an_empty_keyring_says_how_to_make_a_key() {
    let folder = folder();
    let hint = "holds no key: `tokenward key generate` makes one";
    assert_eq!(
        problem(&json!({ "key_file": file(&folder, "# soon\n") })),
        format!("encryption.key_file: {hint}")
    );
    assert_eq!(problem(&json!({ "key": "\n\n" })), format!("encryption.key: {hint}"));
    let path = file(&folder, "");
    let empty = format!("encryption.key_file: {} is empty", path.display());
    assert_eq!(problem(&json!({ "key_file": path })), empty);
    assert_eq!(problem(&json!({ "key": "" })), "encryption.key: must not be empty");
}

#[test]
fn every_problem_of_a_keyring_is_reported_at_once_and_no_key_shows() {
    let good = key();
    let (_, encoded) = good.split_once(':').expect("VERSION:BASE64");
    let ring = format!("{good}\n{good}\n2:{}\nhunter2\n", &encoded[4..]);
    let message = problem(&json!({ "key": ring }));
    assert_eq!(
        message,
        "encryption.key: line 2 repeats version 1 of line 1\n\
         encryption.key: line 3 holds a key of 29 bytes, but a key has 32\n\
         encryption.key: line 4 must be VERSION:BASE64"
    );
}

#[test]
fn a_key_of_the_wrong_type_does_not_show() {
    let message = problem(&json!({ "key": 123_456 }));
    assert!(message.starts_with("encryption.key: ") && !message.contains("123456"), "{message}");
}
