//! No credential and no key shows in what is logged at any level, in errors, or in Debug.

mod support;

use serde_json::json;
use support::fake::{Fake, Reply, granted, healthy};
use support::{BINDING, open};
use tokenward_crypto::DataKeyMaterial;
use tokenward_testkit::provider::LogCapture;

const SECRET_ID: &str = "canary-secret-id-8d1f";
const TOKEN: &str = "s.canary-token-1c77";
/// What the server is given and gives back, as it shows in JSON.
const KEY: &str = "WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo=";

#[tokio::test]
async fn no_secret_is_told() {
    let logs = LogCapture::global();
    let fake = Fake::start(|seen, before| match seen.path.as_str() {
        "auth/approle/login" => granted(TOKEN, 3600),
        // Refusals that repeat what was sent.
        _ if before > 8 => Reply::Json(400, json!({"errors": [seen.body.to_string(), seen.token]})),
        _ => healthy(seen),
    })
    .await;
    let section = fake.section(&json!({"role_id": "role", "secret_id": SECRET_ID}));
    let backend = open(section).await.expect("it comes up");
    let key = DataKeyMaterial::from_bytes([0x5a; 32]);
    let kek = "openbao:transit/tokenward:1";
    let wrapped = backend.wrap(kek, &BINDING, &key).await.expect("it wraps");
    backend.unwrap(&BINDING, &wrapped).await.expect("it unwraps");
    let mut told = format!("{backend:?} {backend:#?}");
    for _ in 0..6 {
        for error in [
            backend.wrap(kek, &BINDING, &key).await.err(),
            backend.unwrap(&BINDING, &wrapped).await.err(),
            backend.status().await.err(),
            backend.create_version().await.err(),
        ] {
            told.extend(error.map(|error| format!("{error} {error:?}\n")));
        }
    }
    assert!(told.contains("openbao: key transit/tokenward"), "errors were told: {told}");
    let logged = logs.text();
    // The capture works: the HTTP library tells at trace level where it connects.
    assert!(logged.contains("127.0.0.1"), "nothing was captured");
    let sent = fake.seen().iter().any(|seen| seen.body.to_string().contains(KEY) && seen.token == TOKEN);
    assert!(sent, "what is looked for was really sent");
    for secret in [SECRET_ID, TOKEN, KEY, "5a5a5a5a5a5a5a5a", "90, 90, 90, 90"] {
        assert!(!told.contains(secret), "{secret} is told in {told}");
        assert!(!logged.contains(secret), "{secret} is logged");
    }
}
