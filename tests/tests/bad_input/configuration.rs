//! Configurations that cannot be served, keys that do not fit, ports that are taken.

use std::net::TcpListener;

use tokenward_tests::{Database, Scratch, Settings, Sql, Tokenward, World};

use crate::refusal::MARKER;

/// `serve` and `config check` refuse a configuration file alike; gives what both say.
async fn refused_alike(folder: &Scratch, config: &str) -> String {
    let file = folder.write("tokenward.toml", config);
    let [check, serve] =
        ["config check --config", "serve --config"].map(|call| Tokenward::new(call).arg(&file));
    let said = check.run().await.fails(1);
    assert_eq!(serve.run().await.fails(1), said);
    assert!(!said.contains(MARKER), "{said}");
    said
}

#[tokio::test]
async fn every_problem_is_told_at_once_by_its_option_and_without_its_value() {
    let folder = Scratch::new();
    let key = folder.write("key", MARKER);
    let said = refused_alike(
        &folder,
        &format!(
            r#"
            colour = "red"
            [storage]
            colour = "red"
            max_connections = "{MARKER}"
            [encryption]
            key = "1:{MARKER}"
            key_file = "{key}"
            [providers.hubspot]
            api_base_url = "http://hubspot.example"
            api_version = "{MARKER}"
            [providers.example]
            kind = "nosuch"
            [listen.service]
            address = "0.0.0.0:7601"
            [listen.admin]
            address = "{MARKER}"
            cert_file = "/nonexistent/tls.crt"
            [[issuers]]
            name = "builtin"
            iss = "https://id.example.com"
            algorithms = ["HS256"]
            jwks_file = "{key}"
            [[issuers]]
            name = "corp"
            iss = "https://id.example.com"
            jwks_file = "{key}"
            jwks_url = "https://id.example.com/jwks.json"
            [broker]
            lease = "1s"
            default_min_ttl = "{MARKER}"
            [log]
            format = "{MARKER}"
            "#,
            key = key.display(),
        ),
    )
    .await;
    for problem in [
        "  - colour: unknown field",
        "  - storage.colour: unknown field",
        "  - storage.max_connections: ",
        "  - encryption.key: give key or key_file, not both",
        "  - providers.hubspot.api_base_url: must be https",
        "  - providers.hubspot.api_version: must be",
        "  - providers.example.kind: unknown provider backend \"nosuch\"; there are: hubspot, oauth2",
        "  - listen.service: others can reach this address and it has no TLS",
        "  - listen.admin.address: must be",
        "  - listen.admin.cert_file: cannot read /nonexistent/tls.crt",
        "  - listen.admin.key_file: is missing",
        "issuer \"builtin\": the name is reserved",
        "algorithm \"HS256\" is refused",
        "  - issuers[1].iss: is the same as issuers[0].iss",
        "  - issuers[1].jwks_url: give jwks_file or jwks_url, not both",
        "  - broker.lease: must be",
        "  - broker.default_min_ttl: must be a duration",
        "  - log.format: ",
    ] {
        assert!(said.contains(problem), "{problem:?} is not in:\n{said}");
    }
}

#[tokio::test]
async fn a_secret_that_is_given_not_at_all_or_by_a_file_that_cannot_be_used_is_refused() {
    let folder = Scratch::new();
    let open = folder.write("open-to-all", "1:x");
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (empty, junk) = (folder.write("empty", ""), folder.write("junk", MARKER));
    let key_file = |path: &std::path::Path| format!("[encryption]\nkey_file = \"{}\"\n", path.display());
    for (config, says) in [
        (String::new(), "encryption.key: is missing: give key or key_file"),
        (key_file(&folder.file("gone")), "encryption.key_file: cannot read"),
        (key_file(folder.path()), "encryption.key_file: cannot read"),
        (key_file(&open), "is open to group or others"),
        (key_file(&empty), "is empty"),
        (key_file(&junk), "encryption.key_file: line 1 must be VERSION:BASE64"),
        (
            "[storage]\nkind = \"postgres\"\n[encryption]\nkey = \"x\"".into(),
            "storage.url: is missing: give url or url_file",
        ),
        (
            format!("[storage]\nkind = \"postgres\"\nurl = \"postgres://{MARKER}\"\nurl_file = \"/x\""),
            "storage.url: give url or url_file, not both",
        ),
        ("a = = 1".into(), "TOML parse error"),
    ] {
        let said = refused_alike(&folder, &config).await;
        assert!(said.contains(says), "{config}\n{said}");
    }
}

#[tokio::test]
async fn what_the_environment_says_too_much_is_refused_as_well() {
    let folder = Scratch::new();
    let settings = Settings::new(&folder, &Database::sqlite()).await;
    let check = || Tokenward::new("config check --config").arg(settings.write());
    check().run().await.ok();
    let both = check().env("TOKENWARD__ENCRYPTION__KEY", format!("1:{MARKER}")).run().await.fails(1);
    assert!(both.contains("encryption.key: give key or key_file, not both"), "{both}");
    let unknown = check().env("TOKENWARD__STORAG__PATH", "x").run().await.fails(1);
    assert!(unknown.contains("storag: unknown field"), "{unknown}");
    let secret = check().arg("--set").arg(format!("encryption.key=1:{MARKER}")).run().await.fails(2);
    assert!(secret.contains("arguments show in process lists"), "{secret}");
}

#[tokio::test]
async fn a_lease_that_a_call_to_the_vendor_may_outlive_is_refused_before_there_is_a_database() {
    let (folder, database) = (Scratch::new(), Database::sqlite());
    let mut settings = Settings::new(&folder, &database).await;
    settings.set("providers.hubspot.timeout", "3s").set("broker.lease", "4s");
    for call in ["config check --config", "serve --config"] {
        let said = Tokenward::new(call).arg(settings.write()).run().await.fails(1);
        assert!(said.contains("broker.lease: must be at least 5s"), "{call}: {said}");
    }
    let Database::Sqlite(files) = &database else { return };
    assert!(!files.file("tokenward.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (folder, database) = (Scratch::new(), Database::sqlite());
    for listener in ["service", "admin", "public", "operations"] {
        let mut settings = Settings::new(&folder, &database).await;
        settings.set(&format!("listen.{listener}.address"), address.clone());
        let said = tokenward_tests::Serve::call(&settings).run().await.fails(1);
        let expected = format!("listen.{listener}.address: {address} is in use");
        assert!(said.contains(&expected), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_wrong_newer_or_gone_stops_the_start_and_the_right_one_finds_everything() {
    let mut world = World::start(Database::sqlite()).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;
    world.take_server().stop().await;
    let mut sql = Sql::open(&world.database).await;
    let before = sql.rows().await;

    let (right, other) = (world.folder.file("tokenward.key"), world.folder.file("other.key"));
    Tokenward::new("key generate --file").arg(&other).run().await.ok();
    let second = std::fs::read_to_string(&other).unwrap().replacen("1:", "2:", 1);
    let second = world.folder.write("second.key", &second);
    let gone = world.folder.file("gone.key");
    for (key, says) in [
        (&other, "the encryption key local:1 is not the one that this database was encrypted with"),
        (&second, "wrapped by the encryption key local:1, which is not there; there are: local:2"),
        (&gone, "encryption.key_file: cannot read"),
    ] {
        world.settings.set("encryption.key_file", key.display().to_string());
        for call in ["serve --config", "principal bootstrap-admin --config"] {
            let said = Tokenward::new(call).arg(world.settings.write()).run().await.fails(1);
            assert!(said.contains(says), "{call}: {said}");
        }
    }
    assert_eq!(sql.rows().await, before);

    world.settings.set("encryption.key_file", right.display().to_string());
    world.restart().await;
    world.get_token("acme").await.unwrap();
}
