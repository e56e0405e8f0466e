//! Starts that fail: configurations with secrets in the wrong places, and the wrong key.

use tokenward_tests::{Database, Scratch, Settings, Tokenward};

use crate::evidence::{Evidence, Source};
use crate::search::Secrets;

/// A configuration file that cannot be used, and the secret in it.
const BROKEN: [(&str, &str); 6] = [
    ("a key that is none", "[encryption]\nkey = \"SECRET\"\n"),
    ("a URL that is none", "[storage]\nkind = \"postgres\"\nurl = \"postgres://u:SECRET@host:port/x\"\n"),
    ("a line that is not TOML", "[encryption]\nkey = \"SECRET\n"),
    ("a secret where a number belongs", "[storage]\nkind = \"postgres\"\nmax_connections = \"SECRET\"\n"),
    ("a secret where a duration belongs", "[broker]\nlease = \"SECRET\"\n"),
    ("a secret where a URL belongs", "[public]\nurl = \"http://SECRET@[/\"\n"),
];

/// Tries every broken configuration.
pub(crate) async fn with_broken_configurations(evidence: &mut Evidence, secrets: &mut Secrets) {
    let folder = Scratch::new();
    for (at, (what, text)) in BROKEN.iter().enumerate() {
        let secret = format!("misplaced-canary-{at}-7d2f40c1b9");
        secrets.add(what, &secret);
        let path = folder.write("broken.toml", &text.replace("SECRET", &secret));
        for command in ["serve --config", "config check --config"] {
            let said = Tokenward::new(command).arg(&path).env("RUST_LOG", "trace").run().await;
            assert!(!said.status.success(), "{what} was accepted");
            evidence.add(Source::FailedStart, *what, said.stdout + &said.stderr);
        }
    }
    let secret = "misplaced-canary-variable-5e1c77a0";
    secrets.add("a variable that is no option", secret);
    for name in ["TOKENWARD__ENCRYPTION__KEY__MORE", "TOKENWARD__STORAGE", "TOKENWARD__LOG__FILTER"] {
        let said = Tokenward::new("serve").env(name, secret).folder(folder.path()).run().await;
        assert!(!said.status.success(), "{name} was accepted");
        evidence.add(Source::FailedStart, name, said.stdout + &said.stderr);
    }
}

/// Tries another key on a database that has one.
pub(crate) async fn with_the_wrong_key(
    settings: &mut Settings,
    database: &Database,
    evidence: &mut Evidence,
    secrets: &mut Secrets,
) {
    let key = Tokenward::new("key generate").run().await.ok().trim().to_owned();
    secrets.add("the wrong key", key.split_once(':').expect("a version and a key").1);
    settings.env("TOKENWARD__ENCRYPTION__KEY", key);
    let said = settings.call("serve").run().await;
    assert!(!said.status.success(), "the wrong key was accepted");
    evidence.add(Source::FailedStart, "the wrong key", said.stdout + &said.stderr);

    // A database that does not answer: its password is in the URL.
    if let Database::Postgres { .. } = database {
        let secret = "canary-password-of-an-absent-server";
        secrets.add("password of an absent server", secret);
        settings.set("storage.url", format!("postgres://tokenward:{secret}@127.0.0.1:1/tokenward"));
        settings.set("storage.connect_timeout", "1s");
        let said = settings.call("serve").run().await;
        assert!(!said.status.success(), "an absent server was accepted");
        evidence.add(Source::FailedStart, "an absent server", said.stdout + &said.stderr);
    }
}
