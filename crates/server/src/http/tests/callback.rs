use std::time::Duration;

use tokenward_broker::Reason;

use super::fake::{CODE, PUBLIC_URL, Site, connected, refused};
use crate::http::explain::explain;

#[tokio::test]
async fn the_flow_gets_every_parameter_and_all_cookies() {
    let site = Site::start().await;
    site.script.finish.lock().push_back(Ok(connected()));
    let url =
        site.url(&format!("/oauth/main/callback?code={CODE}&state=s%2B1&iss=https%3A%2F%2Fop.example&x=y"));
    let request = site.browser.get(url).header("cookie", "other=1; __Host-tokenward-1=v");
    assert_eq!(request.send().await.unwrap().status(), 303);
    let expected = format!(
        r#"finish main Some("{CODE}") Some("s+1") None Some("https://op.example") [("other", "1"), ("__Host-tokenward-1", "v")]"#
    );
    assert_eq!(site.script.seen(), [expected]);
}

#[tokio::test]
async fn success_leads_to_a_page_whose_address_holds_neither_code_nor_state() {
    let site = Site::start().await;
    site.script.finish.lock().push_back(Ok(connected()));
    let response = site.get(&format!("/oauth/main/callback?code={CODE}&state=st4te")).await;
    assert_eq!(response.status(), 303);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert!(!location.contains(CODE) && !location.contains("st4te"), "{location}");
    assert!(
        !response.headers().contains_key("set-cookie"),
        "a reload must still be told apart from a stranger"
    );
    assert!(!response.text().await.unwrap().contains(CODE));

    let response = site.get(location.strip_prefix(PUBLIC_URL).unwrap()).await;
    assert_eq!(response.status(), 200);
    let html = response.text().await.unwrap();
    for text in ["is connected", "Acme Corporation", "acme.example", "4242", "You can close this page"] {
        assert!(html.contains(text), "{text}");
    }
}

#[tokio::test]
async fn the_result_page_leads_on_where_the_link_says() {
    let site = Site::start().await;
    let mut done = connected();
    done.return_url = Some("https://app.example.com/settings?a=1&b=\"".to_owned());
    let path = site.come_back(Ok(done)).await;
    let html = site.get(&path).await.text().await.unwrap();
    assert!(html.contains(r#"href="https://app.example.com/settings?a=1&#38;b=%22""#), "{html}");
    assert!(html.contains("Go on to app.example.com"));
}

#[tokio::test]
async fn an_address_that_is_no_web_page_is_never_linked() {
    let site = Site::start().await;
    for address in ["javascript:alert(1)", "data:text/html,x", "not a url"] {
        let mut done = connected();
        done.return_url = Some(address.to_owned());
        let path = site.come_back(Ok(done)).await;
        let html = site.get(&path).await.text().await.unwrap();
        assert!(!html.contains("href=") && html.contains("You can close this page"), "{html}");
    }
}

#[tokio::test]
async fn hostile_account_names_stay_text() {
    let site = Site::start().await;
    let mut done = connected();
    "<img src=x onerror=alert(1)>".clone_into(&mut done.account_name);
    let path = site.come_back(Ok(done)).await;
    let html = site.get(&path).await.text().await.unwrap();
    assert!(!html.contains("<img") && html.contains("&#60;img"), "{html}");
}

#[tokio::test]
async fn every_failure_is_explained_with_what_to_do_and_a_reference() {
    let site = Site::start().await;
    for &reason in Reason::ALL {
        let path = site.come_back(Err(refused(reason))).await;
        let html = site.get(&path).await.text().await.unwrap();
        let text = explain(reason);
        let shown = |text: &str| html.contains(&text.replace('\'', "&#39;"));
        assert!(shown(text.title) && shown(text.what), "{reason}: {html}");
        assert!(text.next.iter().all(|step| shown(step)), "{reason}: {html}");
        assert!(html.contains(&format!("<code>{reason} req_")), "{reason}: {html}");
        assert!(!html.contains("hunter2") && !html.contains("message-for-callers"), "{reason}: {html}");
    }
}

#[tokio::test]
async fn a_failure_page_names_the_request_that_failed() {
    let site = Site::start().await;
    site.script.finish.lock().push_back(Err(refused(Reason::OtherBrowser)));
    let response = site.get("/oauth/main/callback?code=c&state=s").await;
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let html = site.get(location.strip_prefix(PUBLIC_URL).unwrap()).await.text().await.unwrap();
    assert!(html.contains(&request_id));
}

#[tokio::test]
async fn malformed_callbacks_reach_nothing() {
    let site = Site::start().await;
    let too_long = format!("/oauth/main/callback?code={}", "a".repeat(5000));
    let cases = [
        ("/oauth/main/callback?state=a&state=b", Reason::InvalidRequest),
        (too_long.as_str(), Reason::InvalidRequest),
        ("/oauth/a%20b/callback?state=a", Reason::StateUnknown),
        ("/oauth/%ff/callback?state=a", Reason::StateUnknown),
    ];
    for (path, reason) in cases {
        let response = site.get(path).await;
        assert_eq!(response.status(), 303, "{path}");
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let html = site.get(location.strip_prefix(PUBLIC_URL).unwrap()).await.text().await.unwrap();
        assert!(html.contains(explain(reason).title), "{path}");
    }
    assert!(site.script.seen().is_empty());
}

#[tokio::test]
async fn a_result_is_shown_for_ten_minutes_and_others_are_not_known() {
    let site = Site::start().await;
    let path = site.come_back(Ok(connected())).await;
    assert_eq!(site.get(&path).await.status(), 200);
    site.script.clock.advance(Duration::from_mins(10));
    for path in [path.as_str(), "/connect/result/guess", "/connect/result/%ff"] {
        let response = site.get(path).await;
        assert_eq!(response.status(), 404);
        assert!(response.text().await.unwrap().contains("This result is no longer shown"));
    }
}

#[tokio::test]
async fn only_get_comes_back_from_a_provider() {
    let site = Site::start().await;
    let response = site.browser.post(site.url("/oauth/main/callback?code=c&state=s")).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert!(site.script.seen().is_empty());
}
