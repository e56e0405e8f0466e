//! The error table, row by row, in both forms of body.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokenward_hubspot_sim::{ErrorStyle, SettingsPatch};

use crate::support::{DATED, Fixture, HUB, REDIRECT, answer, start, text};

/// Sends what provokes a row and returns the answer.
async fn provoke(f: &Fixture, row: &str, path: &str) -> (StatusCode, Value) {
    let grant = f.grant();
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", grant.refresh_token.as_str())];
    match row {
        "BAD_REFRESH_TOKEN" => {
            f.post(path, &[("grant_type", "refresh_token"), ("refresh_token", "na1-x")]).await
        }
        "BAD_HUB" => {
            f.handle().delete_portal(HUB).unwrap();
            f.post(path, &refresh).await
        }
        "BAD_AUTH_CODE" => {
            let fields = [("grant_type", "authorization_code"), ("code", "nope"), ("redirect_uri", REDIRECT)];
            f.post(path, &fields).await
        }
        "BAD_CLIENT_ID" => {
            let mut fields = refresh.to_vec();
            fields.extend([("client_id", "unknown"), ("client_secret", "x")]);
            answer(f.http.post(f.url(path)).form(&fields).send().await.unwrap()).await
        }
        "BAD_CLIENT_SECRET" => {
            let mut fields = refresh.to_vec();
            fields.extend([("client_id", f.client_id.as_str()), ("client_secret", "wrong")]);
            answer(f.http.post(f.url(path)).form(&fields).send().await.unwrap()).await
        }
        "BAD_GRANT_TYPE" => {
            let body = json!({
                "grant_type": "refresh_token", "refresh_token": grant.refresh_token,
                "client_id": f.client_id, "client_secret": f.client_secret,
            });
            answer(f.http.post(f.url(path)).json(&body).send().await.unwrap()).await
        }
        "BAD_SCOPES" => f.post(path, &[("grant_type", "client_credentials")]).await,
        other => unreachable!("no row {other}"),
    }
}

const ROWS: [(&str, &str); 7] = [
    ("BAD_REFRESH_TOKEN", "invalid_grant"),
    ("BAD_HUB", "access_denied"),
    ("BAD_AUTH_CODE", "invalid_grant"),
    ("BAD_CLIENT_ID", "invalid_client"),
    ("BAD_CLIENT_SECRET", "invalid_client"),
    ("BAD_GRANT_TYPE", "unsupported_grant_type"),
    ("BAD_SCOPES", "invalid_scope"),
];

#[tokio::test]
async fn every_row_answers_400_in_the_new_form_on_dated_versions_and_v3() {
    for path in ["/oauth/2026-03/token", "/oauth/2026-09/token", "/oauth/v3/token"] {
        for (row, rfc) in ROWS {
            let f = start().await;
            let (status, body) = provoke(&f, row, path).await;
            assert_eq!(status, 400, "{row}");
            assert_eq!(body["status"], row);
            assert_eq!(body["error"], rfc, "{row}");
            assert!(!text(&body["message"]).is_empty(), "{row}");
            assert_eq!(body.get("error_description").is_none(), row == "BAD_HUB", "{row}");
            assert!(body.get("correlationId").is_none(), "{row}");
        }
    }
}

#[tokio::test]
async fn every_row_answers_in_the_old_form_on_v1_and_a_missing_hub_answers_403_there() {
    for (row, _) in ROWS {
        let f = start().await;
        let (status, body) = provoke(&f, row, "/oauth/v1/token").await;
        assert_eq!(status, if row == "BAD_HUB" { 403 } else { 400 }, "{row}");
        assert_eq!(body["status"], row);
        assert_eq!(text(&body["correlationId"]).len(), 36, "{row}");
        assert!(body.get("error").is_none(), "{row}");
    }
}

#[tokio::test]
async fn the_form_of_error_bodies_can_be_chosen_against_the_version() {
    let f = start().await;
    f.set(SettingsPatch { error_style: Some(ErrorStyle::Old), ..SettingsPatch::default() });
    let (_, body) = provoke(&f, "BAD_REFRESH_TOKEN", DATED).await;
    assert_eq!(body["message"], "missing or invalid refresh token");
    assert!(body.get("error").is_none());
    f.set(SettingsPatch { error_style: Some(ErrorStyle::New), ..SettingsPatch::default() });
    let (_, body) = provoke(&f, "BAD_REFRESH_TOKEN", "/oauth/v1/token").await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(body["error_description"], "refresh token is invalid, expired or revoked");
}

#[tokio::test]
async fn a_wrong_secret_answers_401_where_that_is_set() {
    let f = start().await;
    f.set(SettingsPatch { wrong_secret_status: Some(401), ..SettingsPatch::default() });
    let (status, body) = provoke(&f, "BAD_CLIENT_SECRET", DATED).await;
    assert_eq!((status.as_u16(), text(&body["status"])), (401, "BAD_CLIENT_SECRET".into()));
}

#[tokio::test]
async fn credentials_in_a_basic_header_or_in_the_url_do_not_count() {
    let f = start().await;
    let grant = f.grant();
    let fields = [("grant_type", "refresh_token"), ("refresh_token", grant.refresh_token.as_str())];
    let basic = f.http.post(f.url(DATED)).basic_auth(&f.client_id, Some(&f.client_secret)).form(&fields);
    assert_eq!(answer(basic.send().await.unwrap()).await.1["status"], "BAD_CLIENT_ID");
    let url = f.url(&format!("{DATED}?client_id={}&client_secret={}", f.client_id, f.client_secret));
    let query = f.http.post(url).form(&fields).send().await.unwrap();
    assert_eq!(answer(query).await.1["status"], "BAD_CLIENT_ID");
}

#[tokio::test]
async fn an_unknown_grant_type_is_a_bad_grant_type() {
    let f = start().await;
    assert_eq!(f.post(DATED, &[("grant_type", "password")]).await.1["status"], "BAD_GRANT_TYPE");
    assert_eq!(f.post(DATED, &[]).await.1["status"], "BAD_GRANT_TYPE");
}
