use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokenward_broker::{Metrics, Reason};
use tower::ServiceExt;
use tracing_subscriber::fmt::MakeWriter;

use super::fake::{CODE, SECRET, Script, Site, connected, pages, refused};
use crate::admission::{Admission, Waiting};
use crate::http::public::router;
use crate::http::surround::PageMetrics;

const HEADERS: [(&str, &str); 7] = [
    ("cache-control", "no-store"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("strict-transport-security", "max-age=31536000"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

#[tokio::test]
async fn every_answer_carries_the_security_headers_and_a_request_id() {
    let site = Site::start().await;
    site.script.finish.lock().push_back(Ok(connected()));
    let post = site.browser.post(site.url(&format!("/connect/{SECRET}"))).send().await.unwrap();
    let mut responses = vec![post, site.browser.put(site.url("/")).send().await.unwrap()];
    let too_long = format!("/?{}", "a".repeat(9000));
    for path in [
        "/",
        "/robots.txt",
        "/connect/x",
        "/oauth/main/callback?code=c&state=s",
        "/connect/result/x",
        "/nowhere",
        too_long.as_str(),
    ] {
        responses.push(site.get(path).await);
    }
    for response in responses {
        let headers = response.headers();
        for (name, value) in HEADERS {
            assert_eq!(headers[name], value, "{}", response.url().path());
        }
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"));
        assert!(headers["x-request-id"].to_str().unwrap().starts_with("req_"));
        assert!(headers.contains_key("permissions-policy"));
    }
}

#[tokio::test]
async fn visitors_without_a_link_and_robots_are_turned_away() {
    let site = Site::start().await;
    assert_eq!(site.get("/").await.status(), 200);
    assert_eq!(site.get("/robots.txt").await.text().await.unwrap(), "User-agent: *\nDisallow: /\n");
    let missing = site.get("/favicon.ico").await;
    assert_eq!(missing.status(), 404);
    assert!(missing.text().await.unwrap().contains("There is no such page"));
    let wrong = site.browser.delete(site.url("/connect/x")).send().await.unwrap();
    assert_eq!(wrong.status(), 405);
    assert_eq!(wrong.headers()["allow"], "GET,HEAD,POST");
    assert!(wrong.text().await.unwrap().contains("cannot be used like that"));
}

#[tokio::test]
async fn requests_beyond_the_limits_are_refused_before_anything_is_done() {
    let site = Site::start().await;
    let url = site.url(&format!("/connect/{SECRET}"));
    let long_url = site.get(&format!("/connect/{SECRET}?{}", "a".repeat(8192))).await;
    assert_eq!(long_url.status(), 414);
    let cookies = format!("a={}", "b".repeat(16 * 1024));
    assert_eq!(site.browser.get(&url).header("cookie", cookies).send().await.unwrap().status(), 431);
    assert_eq!(site.browser.post(&url).body("a".repeat(4097)).send().await.unwrap().status(), 413);
    assert!(site.script.seen().is_empty());
    assert_eq!(site.browser.post(&url).body("a".repeat(4096)).send().await.unwrap().status(), 303);
}

#[tokio::test]
async fn the_host_header_is_never_used() {
    let site = Site::start().await;
    site.script.finish.lock().push_back(Ok(connected()));
    let url = site.url("/oauth/main/callback?code=c&state=s");
    let request =
        site.browser.get(url).header("host", "evil.example").header("x-forwarded-host", "evil.example");
    let response = request.send().await.unwrap();
    assert!(
        response.headers()["location"]
            .to_str()
            .unwrap()
            .starts_with("https://connect.example.com/connect/result/")
    );
}

#[tokio::test]
async fn a_page_that_takes_too_long_says_so() {
    let mut pages = pages(&Arc::new(Script { hangs: true, ..Script::default() }));
    pages.time_limit = Duration::ZERO;
    let request =
        http::Request::get("/oauth/main/callback?code=c&state=s").body(axum::body::Body::empty()).unwrap();
    let response = router(Arc::new(pages)).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(response.headers()["cache-control"], "no-store");
}

#[tokio::test]
async fn when_too_many_ask_for_pages_they_are_told_to_wait_and_nothing_is_done() {
    let script = Arc::new(Script::default());
    let mut pages = pages(&script);
    pages.places = Admission::new(0, "page", "too many requests at once", &Waiting::default());
    let request = http::Request::get(format!("/connect/{SECRET}")).body(axum::body::Body::empty()).unwrap();
    let response = router(Arc::new(pages)).oneshot(request).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (503.try_into().unwrap(), &"1".parse().unwrap())
    );
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(script.seen().is_empty());
}

#[tokio::test]
async fn a_flood_of_one_page_does_not_keep_customers_from_coming_back() {
    let script = Arc::new(Script { hangs: true, ..Script::default() });
    let mut pages = pages(&script);
    pages.places = Admission::new(4, "page", "too many requests at once", &Waiting::default());
    let (places, router) = (pages.places.clone(), router(Arc::new(pages)));
    let flood: Vec<_> = (0..10).map_while(|_| places.enter("/connect/{secret}", None).ok()).collect();
    assert_eq!(flood.len(), 2);
    let ask = |path: &str| {
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        router.clone().oneshot(request)
    };
    assert_eq!(ask(&format!("/connect/{SECRET}")).await.unwrap().status(), 503);
    let mut coming_back = Box::pin(ask("/oauth/main/callback?code=c&state=s"));
    assert!(futures::poll!(&mut coming_back).is_pending(), "it has a place, and waits for the vendor");
    assert_eq!(script.seen().len(), 1);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn the_log_names_routes_and_causes_but_no_secret_and_no_code() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let site = Site::start().await;
    site.get(&format!("/connect/{SECRET}")).await;
    site.browser.post(site.url(&format!("/connect/{SECRET}"))).send().await.unwrap();
    site.come_back(Err(refused(Reason::GrantRefused))).await;
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    let events: Vec<_> = log.lines().filter(|line| line.contains("page answered")).collect();
    assert_eq!(events.len(), 3, "{log}");
    assert!(
        events[0].contains(r#"route="/connect/{secret}""#) && events[0].contains("request_id=req_"),
        "{log}"
    );
    assert!(events[2].contains("GRANT_REFUSED") && events[2].contains("internal-hunter2"), "{log}");
    for secret in [SECRET, CODE, "cookie-value"] {
        assert!(!events.iter().any(|line| line.contains(secret)), "{log}");
    }
}

#[tokio::test]
async fn answers_are_counted_by_route_and_reason() {
    let metrics = Metrics::new();
    let counts = PageMetrics::default();
    counts.register(&metrics);
    let site = Site::counting(counts).await;
    site.get(&format!("/connect/{SECRET}")).await;
    site.come_back(Err(refused(Reason::StateUsed))).await;
    let text = metrics.encode();
    assert!(
        text.contains(r#"tokenward_http_requests_total{route="/connect/{secret}",status="200",reason=""} 1"#),
        "{text}"
    );
    assert!(
        text.contains(
            r#"tokenward_http_requests_total{route="/oauth/{oauth_client_id}/callback",status="303",reason="STATE_USED"} 1"#
        ),
        "{text}"
    );
}
