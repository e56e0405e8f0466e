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
        missing(part_name, &format!("set {env}"), test);
    }
    value
}

/// Notes that a test is skipped because a part, or something about it, is missing.
///
/// # Panics
/// When all parts are demanded, or the skip cannot be logged.
pub fn missing(part_name: &str, remedy: &str, test: &str) {
    let demanded = std::env::var("TOKENWARD_REQUIRE_PARTS").is_ok_and(|demand| demand == "1");
    assert!(!demanded, "{test} needs {part_name}: {remedy}");
    eprintln!("SKIPPED {test}: needs {part_name}; {remedy}");
    if let Ok(path) = std::env::var("TOKENWARD_SKIP_LOG") {
        log_skip(&path, test, part_name).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
    }
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

/// The URL of a PostgreSQL 18 superuser, from `TOKENWARD_TEST_POSTGRES18_URL`, used as that of [`postgres_url`].
///
/// # Panics
/// As [`part`].
pub fn postgres18_url(test: &str) -> Option<String> {
    part("TOKENWARD_TEST_POSTGRES18_URL", "PostgreSQL 18", test)
}

/// The URL of a PostgreSQL superuser behind a pgbouncer that pools by transaction, from `TOKENWARD_TEST_PGBOUNCER_URL`.
///
/// # Panics
/// As [`part`].
pub fn pgbouncer_url(test: &str) -> Option<String> {
    part("TOKENWARD_TEST_PGBOUNCER_URL", "pgbouncer", test)
}

/// The URL of a MariaDB user who may do everything, from `TOKENWARD_TEST_MARIADB_URL`; each test creates a database of its
/// own there.
///
/// # Panics
/// As [`part`].
pub fn mariadb_url(test: &str) -> Option<String> {
    part("TOKENWARD_TEST_MARIADB_URL", "MariaDB", test)
}

/// The address of an OpenBao server whose root token is `root`, from `TOKENWARD_TEST_OPENBAO_ADDR`; each test makes engines,
/// policies and roles of its own there.
///
/// # Panics
/// As [`part`].
pub fn openbao_address(test: &str) -> Option<String> {
    part("TOKENWARD_TEST_OPENBAO_ADDR", "OpenBao", test)
}

/// The program `bao`, from `TOKENWARD_TEST_BAO`, for tests that need a server of their own.
///
/// # Panics
/// As [`part`].
pub fn bao_program(test: &str) -> Option<String> {
    part("TOKENWARD_TEST_BAO", "OpenBao's program", test)
}

/// The PKCS #11 module of SoftHSM, from `TOKENWARD_TEST_PKCS11_MODULE`; `SOFTHSM2_CONF` tells it where its tokens are, and
/// each test makes a token of its own.
///
/// # Panics
/// As [`part`].
pub fn pkcs11_module(test: &str) -> Option<String> {
    part("TOKENWARD_TEST_PKCS11_MODULE", "SoftHSM", test)
}

/// The URL of a moto server, a stand-in for AWS, from `TOKENWARD_TEST_MOTO_URL`; each test makes keys of its own there, with the
/// credentials that AWS's own chain finds.
///
/// # Panics
/// As [`part`].
pub fn moto_url(test: &str) -> Option<String> {
    part("TOKENWARD_TEST_MOTO_URL", "moto", test)
}
