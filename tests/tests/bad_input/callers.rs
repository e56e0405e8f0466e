//! Caller tokens that must not open anything.

use std::path::Path;

use serde_json::{Value, json};
use tokenward_api::admin::v1::{BlockPrincipalRequest, UnblockPrincipalRequest};
use tokenward_api::v1::GetTokenRequest;
use tokenward_api::v1::token_service_client::TokenServiceClient;
use tokenward_tests::{Clients, Database, Settings, Sql, World, get_token};
use toml::{Table, Value as Toml};
use tonic::{Code, Request};

use crate::issuer::{JwksServer, Signer, but, claims, in_secs, jwks_file, unsigned};
use crate::refusal::{Refused, refused};

const CORP: &str = "https://id.corp.example";
const PARTNER: &str = "https://id.partner.example";

/// A configured issuer; its keys are at a file or a URL.
fn issuer(name: &str, iss: &str, source: Result<&Path, &str>) -> Toml {
    let mut table = Table::new();
    table.insert("name".into(), name.into());
    table.insert("iss".into(), iss.into());
    match source {
        Ok(file) => table.insert("jwks_file".into(), file.display().to_string().into()),
        Err(url) => table.insert("jwks_url".into(), url.into()),
    };
    Toml::Table(table)
}

/// Two issuers besides the built-in one: `corp` with a file, `partner` with a URL.
struct Issuers {
    world: World,
    corp: Signer,
    partner: Signer,
    server: JwksServer,
}

impl Issuers {
    /// `partner`'s keys can be fetched, or not.
    async fn start(is_up: bool) -> Self {
        let (corp, partner) = (Signer::new("corp-1"), Signer::new("partner-1"));
        let server = JwksServer::start(is_up.then(|| partner.jwks())).await;
        let folder = tokenward_tests::Scratch::new();
        let file = jwks_file(&folder, &corp);
        let issuers = vec![issuer("corp", CORP, Ok(&file)), issuer("partner", PARTNER, Err(&server.url))];
        let configure = |settings: &mut Settings| {
            settings.set("issuers", issuers);
        };
        let world = World::start_with(Database::sqlite(), configure, |_| {}).await;
        world.set_up_tenant("acme").await;
        world.connect("acme", World::HUB_ID).await;
        world.create_rule("corp:billing", &["*"]).await;
        Self { world, corp, partner, server }
    }

    async fn get(&self, token: &str) -> Result<tokenward_api::v1::GetTokenResponse, tonic::Status> {
        get_token(&Clients::new(&self.world.server().service(), token), "acme").await
    }

    async fn refused(&self, token: &str) -> Refused {
        refused(self.get(token).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_caller_token_is_told_how_to_send_one() {
    let world = World::start(Database::sqlite()).await;
    let mut client = TokenServiceClient::connect(world.server().service()).await.unwrap();
    for header in [None, Some("Basic YTpi"), Some("Bearer "), Some(world.service_token.as_str())] {
        let mut request =
            Request::new(GetTokenRequest { tenant_id: "acme".into(), ..GetTokenRequest::default() });
        if let Some(header) = header {
            request.metadata_mut().insert("authorization", header.parse().unwrap());
        }
        let refused = refused(client.get_token(request).await);
        assert_eq!(refused.is(), (Code::Unauthenticated, "CALLER_TOKEN_MISSING"), "{header:?}");
        assert!(refused.message.contains("authorization: Bearer"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_token_of_a_known_issuer_is_refused_and_told_why() {
    let issuers = Issuers::start(true).await;
    let mut sql = Sql::open(&issuers.world.database).await;
    let good = claims(CORP, "billing");
    issuers.get(&issuers.corp.token(&good)).await.unwrap();
    let before = sql.rows().await;

    let cases: [(&str, Value, &str); 16] = [
        ("exp", in_secs(-120), "expired"),
        ("exp", Value::Null, "exp"),
        ("exp", in_secs(30 * 24 * 3600), "24 hours"),
        ("exp", json!("tomorrow"), "JWT"),
        ("nbf", in_secs(600), "not valid yet"),
        ("aud", json!("another-service"), "audience"),
        ("aud", Value::Null, "aud"),
        ("iss", json!("https://id.evil.example"), "not configured"),
        ("iss", Value::Null, "iss"),
        ("iss", json!(PARTNER), "does not publish"),
        ("iss", json!("tokenward"), "algorithm"),
        ("sub", Value::Null, "sub"),
        ("sub", json!(""), "sub"),
        ("sub", json!("*"), "principal"),
        ("sub", json!("a\nb"), "principal"),
        ("tokenward_role", json!("admin"), "role"),
    ];
    for (claim, value, says) in cases {
        let refused = issuers.refused(&issuers.corp.token(&but(&good, claim, value.clone()))).await;
        let reason = if says == "expired" { "CALLER_TOKEN_EXPIRED" } else { "CALLER_TOKEN_INVALID" };
        assert_eq!(refused.is(), (Code::Unauthenticated, reason), "{claim} = {value}: {refused:?}");
        assert!(refused.message.contains(says), "{claim} = {value}: {refused:?}");
    }
    assert_eq!(sql.rows().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_counts_only_by_the_issuers_own_key_and_algorithm() {
    let issuers = Issuers::start(true).await;
    let good = claims(CORP, "billing");
    let forger = Signer::new("corp-1");
    let (header, body) = (issuers.corp.token(&good), issuers.corp.token(&but(&good, "sub", json!("root"))));
    let (header, signature) = (header.split('.').next().unwrap(), header.rsplit('.').next().unwrap());
    let spliced = format!("{header}.{}.{signature}", body.split('.').nth(1).unwrap());
    let mut cases = vec![
        ("another key of the same name", forger.token(&good)),
        ("an unknown key", Signer::new("corp-2").token(&good)),
        ("the other issuer's key", issuers.partner.token(&good)),
        ("other claims under a good signature", spliced),
        ("no signature", unsigned("none", &good)),
        ("no signature, spelled otherwise", unsigned("NoNe", &good)),
        (
            "a key in its own header",
            forger.token_with(&json!({"alg": "RS256", "jwk": {"kty": "RSA"}}), &good),
        ),
        (
            "a key at an address in its own header",
            forger.token_with(&json!({"alg": "RS256", "kid": "x", "jku": issuers.server.url}), &good),
        ),
        ("no JWT", "abc".to_owned()),
        ("half a JWT", "abc.def".to_owned()),
        ("more than 8 KiB", issuers.corp.token(&but(&good, "pad", json!("x".repeat(9000))))),
    ];
    let by_hmac = issuers.corp.tokens_by_hmac_of_the_public_key(&good);
    cases.extend(by_hmac.into_iter().map(|token| ("an HMAC by the public key", token)));
    let hits = issuers.server.hits();
    for (what, token) in cases {
        let refused = issuers.refused(&token).await;
        assert_eq!(refused.is(), (Code::Unauthenticated, "CALLER_TOKEN_INVALID"), "{what}: {refused:?}");
        assert!(!refused.message.contains(&token), "{what}: {refused:?}");
    }
    assert_eq!(issuers.server.hits(), hits, "nobody makes the server fetch keys");
    issuers.get(&issuers.corp.token(&good)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_issuers_principal_is_not_anothers() {
    let issuers = Issuers::start(true).await;
    let same_name = issuers.partner.token(&claims(PARTNER, "billing"));
    assert_eq!(issuers.refused(&same_name).await.is(), (Code::PermissionDenied, "ACCESS_DENIED"));
    for (signer, iss, sub) in
        [(&issuers.partner, PARTNER, "corp:billing"), (&issuers.corp, CORP, "builtin:billing")]
    {
        let refused = issuers.refused(&signer.token(&claims(iss, sub))).await;
        assert_eq!(refused.is(), (Code::Unauthenticated, "CALLER_TOKEN_INVALID"), "{iss} {sub}");
        assert!(refused.message.contains("another issuer"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_whose_keys_are_away_refuses_its_own_callers_alone_and_known_keys_stay() {
    let issuers = Issuers::start(false).await;
    let token = issuers.partner.token(&claims(PARTNER, "billing"));
    let away = issuers.refused(&token).await;
    assert_eq!(away.is(), (Code::Unavailable, "CALLER_KEYS_UNAVAILABLE"));
    issuers.get(&issuers.corp.token(&claims(CORP, "billing"))).await.unwrap();
    issuers.world.get_token("acme").await.unwrap();

    let issuers = Issuers::start(true).await;
    issuers.world.create_rule("partner:*", &["*"]).await;
    issuers.server.answer(None);
    // Never seen before, so that no remembered verdict answers.
    issuers.get(&issuers.partner.token(&claims(PARTNER, "billing"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_counts_at_once_and_for_every_token_of_the_principal() {
    let mut world = World::start(Database::sqlite()).await;
    world.set_up_tenant("acme").await;
    world.connect("acme", World::HUB_ID).await;
    let warm = world.service();
    get_token(&warm, "acme").await.unwrap();

    let request = BlockPrincipalRequest { principal: World::PRINCIPAL.into(), reason: "left".into() };
    world.admin().principals().block_principal(request).await.unwrap();
    let blocked = refused(get_token(&warm, "acme").await);
    assert_eq!(blocked.is(), (Code::PermissionDenied, "CALLER_BLOCKED"));
    world.restart().await;
    assert_eq!(refused(world.get_token("acme").await).reason, "CALLER_BLOCKED");

    let request = UnblockPrincipalRequest { principal: World::PRINCIPAL.into() };
    world.admin().principals().unblock_principal(request).await.unwrap();
    world.get_token("acme").await.unwrap();
}
