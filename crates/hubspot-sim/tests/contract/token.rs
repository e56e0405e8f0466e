//! Good answers of the token endpoint, and the life of tokens and secrets.

use serde_json::json;
use tokenward_hubspot_sim::{App, Overlap, SettingsPatch};

use crate::support::{DATED, HUB, REDIRECT, answer, start, text};

#[tokio::test]
async fn a_refresh_answers_what_hubspot_answers_and_repeats_the_refresh_token() {
    let f = start().await;
    let grant = f.grant();
    let (status, body) = f.refresh(&grant.refresh_token).await;
    assert_eq!(status, 200);
    assert_eq!(body["token_type"], "bearer");
    assert_eq!(body["refresh_token"], grant.refresh_token);
    assert!(grant.refresh_token.starts_with("na1-"));
    assert_eq!(body["expires_in"], 1800);
    assert_eq!(body["hub_id"], HUB);
    assert!(body["user_id"].is_u64());
    assert_eq!(body["scopes"], json!(["oauth", "crm.objects.contacts.read"]));
    assert_eq!(body["token_use"], "access_token");
    assert_eq!(text(&body["access_token"]).len(), 300);
    assert_ne!(text(&body["access_token"]), grant.access_token.unwrap());
}

#[tokio::test]
async fn a_refresh_token_works_on_every_version() {
    let f = start().await;
    let grant = f.grant();
    for version in ["v1", "v3", "2026-03", "2026-09"] {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", grant.refresh_token.as_str())];
        let (status, _) = f.post(&format!("/oauth/{version}/token"), &fields).await;
        assert_eq!(status, 200, "{version}");
    }
    let (status, _) = f.post("/oauth/2025-01/token", &[]).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_scope_of_a_refresh_does_not_narrow_the_token() {
    let f = start().await;
    let grant = f.grant();
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", grant.refresh_token.as_str()),
        ("scope", "oauth"),
    ];
    assert_eq!(f.post(DATED, &fields).await.1["scopes"], json!(["oauth", "crm.objects.contacts.read"]));
}

#[tokio::test]
async fn lifetime_and_length_of_access_tokens_are_settings() {
    let f = start().await;
    let grant = f.grant();
    let patch = SettingsPatch {
        token_lifetime_secs: Some(90),
        access_token_length: Some(512),
        ..SettingsPatch::default()
    };
    f.set(patch);
    let (_, body) = f.refresh(&grant.refresh_token).await;
    let token = text(&body["access_token"]);
    assert_eq!((body["expires_in"].as_u64(), token.len()), (Some(90), 512));
    f.handle().advance_secs(89);
    assert_eq!(f.contacts(&token, "").await.0, 200);
    f.handle().advance_secs(1);
    assert_eq!(f.contacts(&token, "").await.0, 401);
}

#[tokio::test]
async fn a_refresh_token_of_another_client_is_refused() {
    let f = start().await;
    let grant = f.grant();
    let other = App {
        client_id: "other".into(),
        client_secret: "other-secret".into(),
        app_id: 2,
        name: "Other".into(),
        required_scopes: vec!["oauth".into()],
        optional_scopes: vec![],
        redirect_uris: vec![REDIRECT.into()],
    };
    f.handle().add_app(other).unwrap();
    let fields = [
        ("client_id", "other"),
        ("client_secret", "other-secret"),
        ("grant_type", "refresh_token"),
        ("refresh_token", &grant.refresh_token),
    ];
    let refused = f.http.post(f.url(DATED)).form(&fields).send().await.unwrap();
    assert_eq!(answer(refused).await.1["status"], "BAD_REFRESH_TOKEN");
    assert_eq!(f.refresh(&grant.refresh_token).await.0, 200);
}

#[tokio::test]
async fn a_new_secret_without_overlap_kills_the_old_one_at_once() {
    let mut f = start().await;
    let grant = f.grant();
    f.handle().set_client_secret(&f.client_id, "new-secret", Overlap::None).unwrap();
    assert_eq!(f.refresh(&grant.refresh_token).await.1["status"], "BAD_CLIENT_SECRET");
    f.client_secret = "new-secret".into();
    assert_eq!(f.refresh(&grant.refresh_token).await.0, 200);
}

#[tokio::test]
async fn a_new_secret_with_overlap_lets_the_old_one_live_until_the_window_ends() {
    let mut f = start().await;
    let grant = f.grant();
    f.handle().set_client_secret(&f.client_id, "new-secret", Overlap::Secs(60)).unwrap();
    f.handle().advance_secs(59);
    assert_eq!(f.refresh(&grant.refresh_token).await.0, 200);
    f.handle().advance_secs(1);
    assert_eq!(f.refresh(&grant.refresh_token).await.1["status"], "BAD_CLIENT_SECRET");
    f.client_secret = "new-secret".into();
    assert_eq!(f.refresh(&grant.refresh_token).await.0, 200);
}

#[tokio::test]
async fn client_credentials_without_scope_tells_a_right_secret_from_a_wrong_one() {
    let mut f = start().await;
    let probe = [("grant_type", "client_credentials")];
    assert_eq!(f.post(DATED, &probe).await.1["status"], "BAD_SCOPES");
    f.client_secret = "wrong".into();
    assert_eq!(f.post(DATED, &probe).await.1["status"], "BAD_CLIENT_SECRET");
}
