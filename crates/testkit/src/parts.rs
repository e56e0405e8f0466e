//! Real parts that a test needs and that not every machine has: a test without its part says so, or fails where CI
//! demands all parts.

use std::io::Write as _;

/// The address of a part from the environment variable `env`. Without it: panics if `TOKENWARD_REQUIRE_PARTS` is 1; else
/// prints `SKIPPED`, appends a line of test and part (separated by a tab) to the file that `TOKENWARD_SKIP_LOG` names, and
/// is `None`: the test returns.
///
/// # Panics
/// When the part is missing and demanded, or the skip cannot be logged.
pub fn part(env: &str, part_name: &str, test: &str) -> Option<String> {
    let value = std::env::var(env).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let demanded = std::env::var("TOKENWARD_REQUIRE_PARTS").is_ok_and(|demand| demand == "1");
        assert!(!demanded, "{test} needs {part_name}: set {env}");
        eprintln!("SKIPPED {test}: needs {part_name}; set {env}");
        if let Ok(path) = std::env::var("TOKENWARD_SKIP_LOG") {
            log_skip(&path, test, part_name).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
        }
    }
    value
}

fn log_skip(path: &str, test: &str, part_name: &str) -> std::io::Result<()> {
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    // One write, so that lines of tests that run at once do not mix.
    log.write_all(format!("{test}\t{part_name}\n").as_bytes())
}

/// The URL of a PostgreSQL superuser, from `TOKENWARD_TEST_POSTGRES_URL`; each test creates a database of its own there.
///
/// # Panics
/// As [`part`].
pub fn postgres_url(test: &str) -> Option<String> {
    part("TOKENWARD_TEST_POSTGRES_URL", "PostgreSQL", test)
}
