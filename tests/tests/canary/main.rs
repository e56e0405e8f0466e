//! No secret leaves by a way that is not for it: logs at their most talkative, metrics, pages, errors, process lists,
//! databases. What is searched for is planted and known; that the search finds what is there is checked along with it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test whose helpers fail by panicking too")]

mod awskms;
mod evidence;
mod journey;
mod search;
mod starts;

use evidence::{Evidence, Source};
use journey::Journey;
use tokenward_tests::Database;

/// Where each way out must show its marker: a way that was not looked at would look clean.
const WAYS: [(Source, &str); 8] = [
    (Source::ServerLog, "tenant"),
    (Source::CommandLine, "tenant"),
    (Source::Page, "tenant"),
    (Source::GrpcError, "tenant"),
    (Source::Metrics, "method"),
    (Source::ProcessList, "configuration file"),
    (Source::Database, "tenant"),
    (Source::FailedStart, "option"),
];

async fn no_secret_leaves(database: Database, log_format: &str) {
    let mut journey = Journey::start(database, log_format).await;
    journey.succeed().await;
    journey.fail_at_the_vendor().await;
    journey.fail_in_the_connect_flow().await;
    journey.fail_as_callers().await;
    journey.fail_in_the_database().await;
    journey.fail_to_store().await;
    let (evidence, secrets, markers) = journey.end().await;

    for (source, marker) in WAYS {
        let found = evidence.find(source, &markers);
        assert!(found.iter().any(|finding| finding.secret == marker), "{source:?} was not looked at");
    }
    // What waits there is sealed, so that no marker shows: that an answer waited is checked when it is taken.
    assert!(!evidence.text(Source::Journal).is_empty(), "the journal was not looked at");
    // The filter is `trace`: libraries that see secrets say no more by it, and nothing of ours on this way is finer than this.
    assert!(evidence.text(Source::ServerLog).contains("DEBUG"), "the log is not at its most talkative");
    assert!(secrets.len() >= 20, "only {} secrets were planted", secrets.len());
    let leaks = evidence.find_all(&secrets);
    assert!(leaks.is_empty(), "secrets left:\n{}", leaks.join("\n"));

    // The same search over the same evidence finds a secret that is there, in whatever disguise.
    for disguise in search::disguises(secrets.sample()) {
        let mut planted = Evidence::default();
        planted.add(
            Source::ServerLog,
            "a planted line",
            [b"level=trace body=".as_slice(), &disguise, b"&x"].concat(),
        );
        assert_eq!(planted.find_all(&secrets).len(), 1, "{}", String::from_utf8_lossy(&disguise));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_an_installation_on_sqlite_that_logs_json() {
    no_secret_leaves(Database::sqlite(), "json").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_an_installation_on_postgresql_that_logs_text() {
    let Some(database) = Database::postgres().await else { return };
    no_secret_leaves(database, "text").await;
}
