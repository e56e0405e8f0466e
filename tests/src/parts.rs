//! Real parts that a scenario needs and that not every machine has: without its part a scenario says so and is skipped,
//! or fails where CI demands all parts.

use std::io::Write as _;
use std::path::PathBuf;

/// The value of the environment variable `env`, which tells where a part is. Without it: panics if
/// `TOKENWARD_REQUIRE_PARTS` is 1; else prints `SKIPPED`, appends a line of test and part (separated by a tab) to the file
/// that `TOKENWARD_SKIP_LOG` names, and is `None`: the test returns.
pub fn part(env: &str, part_name: &str) -> Option<String> {
    let value = std::env::var(env).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        let test = test_name();
        let demanded = std::env::var("TOKENWARD_REQUIRE_PARTS").is_ok_and(|demand| demand == "1");
        assert!(!demanded, "{test} needs {part_name}: set {env}");
        eprintln!("SKIPPED {test}: needs {part_name}; set {env}");
        if let Ok(path) = std::env::var("TOKENWARD_SKIP_LOG") {
            log_skip(&path, &test, part_name).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
        }
    }
    value
}

/// The URL of a PostgreSQL superuser.
pub fn postgres_url() -> Option<String> {
    part("TOKENWARD_TEST_POSTGRES_URL", "postgres")
}

/// The URL of a MariaDB user who may do everything.
pub fn mariadb_url() -> Option<String> {
    part("TOKENWARD_TEST_MARIADB_URL", "mariadb")
}

/// The address of an OpenBao whose root token is `root`.
pub fn openbao_address() -> Option<String> {
    part("TOKENWARD_TEST_OPENBAO_ADDR", "openbao")
}

/// The URL of a moto server, a stand-in for AWS.
pub fn moto_url() -> Option<String> {
    part("TOKENWARD_TEST_MOTO_URL", "moto")
}

/// A Python with grpcio, its tools, and HubSpot's own client.
pub fn python() -> Option<PathBuf> {
    part("TOKENWARD_TEST_PYTHON", "python").map(PathBuf::from)
}

/// A folder whose `node_modules` holds a gRPC client, HubSpot's own client and a browser driver.
pub fn node_folder() -> Option<PathBuf> {
    part("TOKENWARD_TEST_NODE_DIR", "node").map(PathBuf::from)
}

/// A Chromium.
pub fn chromium() -> Option<PathBuf> {
    part("TOKENWARD_TEST_CHROMIUM", "chromium").map(PathBuf::from)
}

/// Test harnesses name the thread after the test.
fn test_name() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

fn log_skip(path: &str, test: &str, part_name: &str) -> std::io::Result<()> {
    let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    // One write, so that lines of tests that run at once do not mix.
    log.write_all(format!("{test}\t{part_name}\n").as_bytes())
}
