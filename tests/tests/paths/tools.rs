//! The tools that people debug gRPC with: reflection in both versions, health checks, a call by reflection alone.

use serde_json::{Value, json};
use tokenward_tests::{Database, Script, Settings, World, parts};

const ADMIN_SERVICES: [&str; 6] = [
    "tokenward.admin.v1.AccessRuleService",
    "tokenward.admin.v1.ConnectionService",
    "tokenward.admin.v1.KeyService",
    "tokenward.admin.v1.OAuthClientService",
    "tokenward.admin.v1.PrincipalService",
    "tokenward.admin.v1.TenantService",
];

#[tokio::test(flavor = "multi_thread")]
async fn grpcio_finds_services_by_reflection_and_their_health() {
    let Some(python) = parts::python() else { return };
    let world = World::bare(Database::sqlite(), |_| {}, |_| {}).await;
    let ask = async |address: &str| {
        Script::python(&python, "reflection.py").run(&json!({ "address": address })).await
    };
    let service = ask(&world.server().addresses.service).await;
    assert_eq!(
        service["methods"],
        json!({ "tokenward.v1.TokenService": ["GetToken", "ReportRejectedToken"] })
    );
    assert_eq!(service["health"], json!({ "": "SERVING", "tokenward.v1.TokenService": "SERVING" }));
    let admin = ask(&world.server().addresses.admin).await;
    let found: Vec<&String> = admin["methods"].as_object().unwrap().keys().collect();
    assert_eq!(found, ADMIN_SERVICES, "each listener tells its own services");
    let health = admin["health"].as_object().unwrap();
    assert!(
        health.len() == ADMIN_SERVICES.len() + 1 && health.values().all(|status| status == "SERVING"),
        "{admin}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_can_be_got_by_reflection_alone_in_both_versions() {
    let Some(python) = parts::python() else { return };
    let buf = python.with_file_name("buf");
    let world = World::start(Database::sqlite()).await;
    world.set_up_tenant("acme").await;
    let connection = world.connect("acme", World::HUB_ID).await;
    let headers = world.folder.write("headers", &format!("authorization: Bearer {}", world.service_token));
    let headers = format!("@{}", headers.display());
    for version in ["grpc-v1", "grpc-v1alpha"] {
        let url = format!("{}/tokenward.v1.TokenService/GetToken", world.server().service());
        let call = ["curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", version];
        let arguments =
            [&call[..], &["--header", &headers, "--data", r#"{"tenantId": "acme"}"#, &url]].concat();
        let answer = Script::program(&buf, &arguments).run(&Value::Null).await;
        assert_eq!(answer["connectionId"], connection.as_str(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_can_be_switched_off() {
    let Some(python) = parts::python() else { return };
    let configure = |settings: &mut Settings| {
        settings.set("listen.service.reflection", false);
    };
    let world = World::bare(Database::sqlite(), configure, |_| {}).await;
    let input = json!({ "address": world.server().addresses.service });
    let said = Script::python(&python, "reflection.py").finish(&input).await.fails(1);
    assert!(said.contains("UNIMPLEMENTED"), "{said}");
}
