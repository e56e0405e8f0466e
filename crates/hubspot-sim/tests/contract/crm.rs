//! Contacts and uninstallation: what a token is good for.

use serde_json::json;
use tokenward_hubspot_sim::FamilyEnd;

use crate::support::{HUB, start, text};

#[tokio::test]
async fn contacts_come_in_pages_until_there_are_no_more() {
    let f = start().await;
    let token = f.grant().access_token.unwrap();
    let (status, page) = f.contacts(&token, "?limit=20").await;
    assert_eq!(status, 200);
    assert_eq!(page["results"].as_array().unwrap().len(), 20);
    assert!(text(&page["results"][0]["properties"]["email"]).contains(&HUB.to_string()));
    let after = text(&page["paging"]["next"]["after"]);
    let (_, page) = f.contacts(&token, &format!("?limit=20&after={after}")).await;
    assert_eq!(page["results"].as_array().unwrap().len(), 5);
    assert!(page.get("paging").is_none());
    assert_eq!(f.contacts(&token, "?limit=101").await.1["category"], "VALIDATION_ERROR");
}

#[tokio::test]
async fn an_expired_token_and_an_unknown_one_are_told_apart() {
    let f = start().await;
    let token = f.grant().access_token.unwrap();
    f.handle().advance_secs(1800);
    let (status, body) = f.contacts(&token, "").await;
    assert_eq!((status.as_u16(), text(&body["category"])), (401, "EXPIRED_AUTHENTICATION".into()));
    assert_eq!(body["status"], "error");
    assert_eq!(text(&body["correlationId"]).len(), 36);
    let (status, body) = f.contacts("unknown", "").await;
    assert_eq!((status.as_u16(), text(&body["category"])), (401, "INVALID_AUTHENTICATION".into()));
    let bare = f.http.get(f.url("/crm/v3/objects/contacts")).send().await.unwrap();
    assert_eq!(bare.status(), 401);
}

#[tokio::test]
async fn a_token_without_the_scope_is_told_which_one_is_missing() {
    let f = start().await;
    let token = f.grant_with(&["oauth"]).access_token.unwrap();
    let (status, body) = f.contacts(&token, "").await;
    assert_eq!((status.as_u16(), text(&body["category"])), (403, "MISSING_SCOPES".into()));
    let scopes = &body["errors"][0]["context"]["requiredGranularScopes"];
    assert_eq!(scopes, &json!(["crm.objects.contacts.read"]));
}

#[tokio::test]
async fn uninstalling_answers_204_and_ends_every_grant_of_the_app_in_that_account() {
    let f = start().await;
    let (first, second) = (f.grant(), f.grant());
    let url = f.url("/appinstalls/2026-03/external-install");
    let access = first.access_token.unwrap();
    assert_eq!(f.http.delete(&url).bearer_auth(&access).send().await.unwrap().status(), 204);
    for token in [&first.refresh_token, &second.refresh_token] {
        assert_eq!(f.spend(token).await.unwrap_err(), "BAD_REFRESH_TOKEN");
    }
    assert_eq!(f.contacts(&access, "").await.1["category"], "INVALID_AUTHENTICATION");
    assert_eq!(f.http.delete(&url).bearer_auth(&access).send().await.unwrap().status(), 401);
    assert!(f.handle().grants(HUB).iter().all(|g| g.ended == Some(FamilyEnd::Uninstalled)));
}

#[tokio::test]
async fn invalidated_access_tokens_die_while_the_refresh_token_brings_a_new_one() {
    let f = start().await;
    let grant = f.grant();
    f.handle().invalidate_access_tokens(HUB).unwrap();
    assert_eq!(f.contacts(&grant.access_token.unwrap(), "").await.0, 401);
    let (_, body) = f.refresh(&grant.refresh_token).await;
    assert_eq!(f.contacts(&text(&body["access_token"]), "").await.0, 200);
}

#[tokio::test]
async fn a_private_app_token_reads_contacts_and_never_expires() {
    let f = start().await;
    let token = f.handle().add_static_token(HUB, vec!["crm.objects.contacts.read".into()]).unwrap();
    assert!(token.starts_with("pat-na1-"));
    f.handle().advance_secs(400 * 86_400);
    assert_eq!(f.contacts(&token, "").await.0, 200);
}
