use tokenward_broker::Reason;
use tokenward_types::{AccountId, Scopes};

use super::fake::{SECRET, Site, page, refused};

#[tokio::test]
async fn a_link_shows_who_asks_for_what_and_starts_nothing() {
    let site = Site::start().await;
    let response = site.get(&format!("/connect/{SECRET}")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert!(!response.headers().contains_key("set-cookie"));
    let html = response.text().await.unwrap();
    for text in
        ["Contact Sync", "Acme Corporation", "HubSpot", "app.hubspot.com", "crm.objects.contacts.read"]
    {
        assert!(html.contains(text), "{text}");
    }
    assert!(html.contains("<code>crm.objects.deals.read</code> <span>(optional)</span>"));
    assert!(html.contains(r#"<form method="post">"#) && html.contains(r#"<html lang="en">"#));
    assert!(!html.contains("<script") && !html.contains(SECRET));
    assert_eq!(site.script.seen(), [format!("page {SECRET}")]);
}

#[tokio::test]
async fn head_of_a_link_starts_nothing() {
    let site = Site::start().await;
    let response = site.browser.head(site.url(&format!("/connect/{SECRET}"))).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("set-cookie"));
    assert!(!site.script.seen().iter().any(|call| call.starts_with("start")));
}

#[tokio::test]
async fn the_button_sets_a_cookie_for_this_host_and_leads_to_the_provider() {
    let site = Site::start().await;
    let request =
        site.browser.post(site.url(&format!("/connect/{SECRET}"))).header("sec-fetch-site", "same-origin");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 303);
    assert_eq!(response.headers()["location"], "https://app.hubspot.com/oauth/authorize?state=abc");
    assert_eq!(
        response.headers()["set-cookie"],
        "__Host-tokenward-1=cookie-value; Max-Age=600; Path=/; HttpOnly; SameSite=Lax; Secure"
    );
    assert_eq!(site.script.seen(), [format!("start {SECRET}")]);
}

#[tokio::test]
async fn a_form_on_another_site_leads_to_the_page_instead_of_past_it() {
    let site = Site::start().await;
    for from in ["cross-site", "same-site"] {
        let request =
            site.browser.post(site.url(&format!("/connect/{SECRET}"))).header("sec-fetch-site", from);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 303);
        assert_eq!(response.headers()["location"], format!("https://connect.example.com/connect/{SECRET}"));
        assert!(!response.headers().contains_key("set-cookie"));
    }
    assert!(site.script.seen().is_empty());
}

#[tokio::test]
async fn the_form_may_lead_to_the_provider_and_other_pages_have_none() {
    let site = Site::start().await;
    let policy = |response: reqwest::Response| {
        response.headers()["content-security-policy"].to_str().unwrap().to_owned()
    };
    assert!(policy(site.get(&format!("/connect/{SECRET}")).await).contains("form-action 'self' https:;"));
    assert!(policy(site.get("/").await).contains("form-action 'none';"));
}

#[tokio::test]
async fn the_style_in_the_page_is_the_one_that_the_policy_allows() {
    use base64::Engine;
    let site = Site::start().await;
    let response = site.get(&format!("/connect/{SECRET}")).await;
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let html = response.text().await.unwrap();
    let style = html.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let hash = base64::prelude::BASE64_STANDARD.encode(tokenward_types::sha256(style.as_bytes()));
    assert!(policy.contains(&format!("style-src 'sha256-{hash}'")), "{policy}");
    assert!(!html.contains("style=\""), "an inline style would be refused");
}

#[tokio::test]
async fn hostile_names_stay_text() {
    let hostile = r#"<script>alert(1)</script>"'&{{7*7}}"#;
    let site = Site::with(|script| {
        let mut page = page();
        hostile.clone_into(&mut page.tenant_name);
        hostile.clone_into(&mut page.client_name);
        hostile.clone_into(&mut page.provider_name);
        page.account = Some(AccountId::parse("42").unwrap());
        page.scopes = Scopes::new(["<b>bold</b>"]).unwrap();
        page.optional_scopes = Scopes::default();
        *script.page.get_mut() = Ok(page);
    })
    .await;
    let html = site.get(&format!("/connect/{SECRET}")).await.text().await.unwrap();
    assert!(!html.contains("<script") && !html.contains("<b>") && !html.contains("49"), "{html}");
    assert!(html.contains("&#60;script&#62;") && html.contains("&#60;b&#62;"), "{html}");
    assert!(html.contains("<bdi>42</bdi>"), "{html}");
}

#[tokio::test]
async fn many_permissions_are_folded_away() {
    let site = Site::with(|script| {
        let mut page = page();
        page.scopes = Scopes::new((0..20).map(|i| format!("scope-{i}"))).unwrap();
        *script.page.get_mut() = Ok(page);
    })
    .await;
    let html = site.get(&format!("/connect/{SECRET}")).await.text().await.unwrap();
    assert!(html.contains("<summary>21 permissions</summary>") && html.contains("scope-19"));
}

#[tokio::test]
async fn a_link_that_cannot_be_used_says_why() {
    let cases = [
        (Reason::LinkUnknown, 404, "This link is not known"),
        (Reason::LinkExpired, 410, "This link has expired"),
        (Reason::LinkUsed, 410, "This link has done its work"),
        (Reason::StorageUnavailable, 503, "This does not work at the moment"),
    ];
    for (reason, status, title) in cases {
        let site = Site::with(|script| *script.page.get_mut() = Err(refused(reason))).await;
        let url = site.url(&format!("/connect/{SECRET}"));
        for request in [site.browser.get(&url), site.browser.post(&url)] {
            let response = request.header("x-request-id", "req-from-proxy").send().await.unwrap();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["x-request-id"], "req-from-proxy");
            let html = response.text().await.unwrap();
            assert!(html.contains(title) && html.contains(&format!("{reason} req-from-proxy")), "{html}");
            assert!(!html.contains("hunter2"));
        }
    }
}

#[tokio::test]
async fn what_cannot_be_a_secret_is_not_looked_up() {
    let site = Site::start().await;
    for path in
        ["/connect/%3Cscript%3E", "/connect/a%2Fb", "/connect/%ff", &format!("/connect/{}", "a".repeat(129))]
    {
        let response = site.get(path).await;
        assert_eq!(response.status(), 404, "{path}");
        assert!(response.text().await.unwrap().contains("This link is not known"));
        assert_eq!(site.browser.post(site.url(path)).send().await.unwrap().status(), 404, "{path}");
    }
    assert!(site.script.seen().is_empty());
}
