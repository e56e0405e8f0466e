//! Introspection, the v1 metadata GETs, revocation.

use reqwest::StatusCode;
use serde_json::json;
use tokenward_hubspot_sim::{FamilyEnd, SimConfig};

use crate::support::{HUB, REDIRECT, answer, start};

#[tokio::test]
async fn a_live_access_token_is_described_and_echoed() {
    let f = start().await;
    let token = f.grant().access_token.unwrap();
    f.handle().advance_secs(11);
    for version in ["v3", "2026-03", "2026-09"] {
        let path = format!("/oauth/{version}/token/introspect");
        let (status, body) = f.post(&path, &[("token", &token), ("token_type_hint", "access_token")]).await;
        assert_eq!(status, 200);
        assert_eq!(body["active"], true);
        assert_eq!(body["hub_id"], HUB);
        assert_eq!(body["client_id"], f.client_id);
        assert_eq!(body["app_id"], 100_001);
        assert_eq!(body["hub_domain"], "acme.example");
        assert_eq!(body["scopes"], json!(["oauth", "crm.objects.contacts.read"]));
        assert_eq!(body["expires_in"], 1789);
        assert_eq!((&body["token_use"], &body["token_type"]), (&json!("access_token"), &json!("Bearer")));
        assert_eq!(body["token"], token);
    }
}

#[tokio::test]
async fn dead_unknown_and_foreign_tokens_are_just_inactive() {
    let f = start().await;
    let dead = json!({"active": false});
    let grant = f.grant();
    assert_eq!(f.introspect("nonsense").await, dead);
    f.handle().advance_secs(1800);
    assert_eq!(f.introspect(&grant.access_token.unwrap()).await, dead);
    assert_eq!(f.introspect(&grant.refresh_token).await["token_use"], "refresh_token");
    let mut other = SimConfig::demo([REDIRECT]).apps.remove(0);
    (other.client_id, other.client_secret) = ("other".into(), "other-secret".into());
    f.handle().add_app(other).unwrap();
    let fields = [("client_id", "other"), ("client_secret", "other-secret"), ("token", &grant.refresh_token)];
    let path = "/oauth/2026-03/token/introspect";
    assert_eq!(answer(f.http.post(f.url(path)).form(&fields).send().await.unwrap()).await.1, dead);
    answer(f.http.post(f.url("/oauth/2026-03/token/revoke")).form(&fields).send().await.unwrap()).await;
    assert!(f.handle().is_refresh_token_live(&grant.refresh_token), "revoked by another client");
    f.handle().delete_portal(HUB).unwrap();
    assert_eq!(f.introspect(&grant.refresh_token).await, dead);
}

#[tokio::test]
async fn introspection_and_revocation_need_the_right_secret() {
    let mut f = start().await;
    let grant = f.grant();
    f.client_secret = "wrong".into();
    for path in ["/oauth/2026-03/token/introspect", "/oauth/2026-03/token/revoke"] {
        let (status, body) = f.post(path, &[("token", &grant.refresh_token)]).await;
        assert_eq!((status, &body["status"]), (StatusCode::BAD_REQUEST, &json!("BAD_CLIENT_SECRET")));
    }
    assert!(f.handle().is_refresh_token_live(&grant.refresh_token));
}

#[tokio::test]
async fn the_v1_metadata_gets_describe_live_tokens_and_refuse_dead_ones() {
    let f = start().await;
    let grant = f.grant();
    let rows = [
        (format!("/oauth/v1/access-tokens/{}", grant.access_token.unwrap()), "bearer"),
        (format!("/oauth/v1/refresh-tokens/{}", grant.refresh_token), "refresh"),
    ];
    for (path, kind) in &rows {
        let (status, body) = answer(f.http.get(f.url(path)).send().await.unwrap()).await;
        assert_eq!((status, &body["token_type"]), (StatusCode::OK, &json!(kind)));
        assert_eq!((&body["user"], &body["client_id"]), (&json!("ada@acme.example"), &json!(f.client_id)));
    }
    f.handle().uninstall(HUB, None).unwrap();
    for (path, _) in &rows {
        assert_eq!(f.http.get(f.url(path)).send().await.unwrap().status(), 404);
    }
}

#[tokio::test]
async fn revoking_kills_the_refresh_token_and_lets_access_tokens_live_on() {
    let f = start().await;
    for version in ["v3", "2026-03", "2026-09"] {
        let grant = f.grant();
        let path = format!("/oauth/{version}/token/revoke");
        let response = f.form(&path, &[("token", &grant.refresh_token)]).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(f.spend(&grant.refresh_token).await.unwrap_err(), "BAD_REFRESH_TOKEN");
        assert_eq!(f.contacts(&grant.access_token.unwrap(), "").await.0, 200);
    }
    assert!(f.handle().grants(HUB).iter().all(|g| g.ended == Some(FamilyEnd::Revoked)));
}

#[tokio::test]
async fn revoking_an_unknown_token_succeeds() {
    let f = start().await;
    assert_eq!(f.post("/oauth/2026-03/token/revoke", &[("token", "na1-unknown")]).await.0, 200);
}

#[tokio::test]
async fn v1_deletes_a_refresh_token_with_204() {
    let f = start().await;
    let grant = f.grant();
    let url = f.url(&format!("/oauth/v1/refresh-tokens/{}", grant.refresh_token));
    assert_eq!(f.http.delete(&url).send().await.unwrap().status(), 204);
    assert!(!f.handle().is_refresh_token_live(&grant.refresh_token));
}
