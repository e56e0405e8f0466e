//! The connect flow as a customer's browser goes through it: real pages, a real broker, the stand-in HubSpot's form.

use reqwest::{Client, Response};
use tokenward_api::admin::v1 as api;
use tokenward_api::admin::v1::connection_service_client::ConnectionServiceClient;
use tokenward_auth::Role;
use url::Url;

use crate::world::{World, http_client};

const PUBLIC_URL: &str = "http://localhost:7603";

/// A browser with the cookie that it was given, and the pages that it opens.
struct Browser<'a> {
    world: &'a World,
    client: Client,
    cookie: Option<String>,
}

impl<'a> Browser<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, client: http_client(), cookie: None }
    }

    /// The listener's address, for an address under the public URL.
    fn address(&self, url: &str) -> String {
        let path = url.strip_prefix(PUBLIC_URL).unwrap_or_else(|| panic!("not under the public URL: {url}"));
        format!("http://{}{path}", self.world.addresses.public)
    }

    async fn open(&self, url: &str) -> Response {
        let mut request = self.client.get(self.address(url));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        request.send().await.unwrap()
    }

    /// Presses the button of a link's page, and decides at the provider. Returns the callback's address.
    async fn decide(&mut self, link: &str, decision: &str, hub_id: &str) -> String {
        let started = self.client.post(self.address(link)).send().await.unwrap();
        assert_eq!(started.status(), 303);
        let cookie = started.headers()["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
        self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
        let authorize = Url::parse(&location(&started)).unwrap();
        assert_eq!(self.client.get(authorize.clone()).send().await.unwrap().status(), 200);
        let mut form: Vec<_> = authorize.query_pairs().into_owned().collect();
        form.push(("hub_id".to_owned(), hub_id.to_owned()));
        form.push(("decision".to_owned(), decision.to_owned()));
        let decided = authorize.join("/oauth/authorize/decision").unwrap();
        let decided = self.client.post(decided).form(&form).send().await.unwrap();
        assert_eq!(decided.status(), 302);
        location(&decided)
    }

    /// Follows a callback to the text of its result page.
    async fn come_back(&self, callback: &str) -> String {
        let answer = self.open(callback).await;
        assert_eq!(answer.status(), 303);
        let result = location(&answer);
        assert!(
            result.starts_with(&format!("{PUBLIC_URL}/connect/result/")) && !result.contains("code"),
            "{result}"
        );
        self.open(&result).await.text().await.unwrap()
    }
}

fn location(response: &Response) -> String {
    response.headers()["location"].to_str().unwrap().to_owned()
}

async fn link(world: &World, account: &str) -> String {
    let mut connections = ConnectionServiceClient::new(world.admin(Role::Operator).await);
    let request = api::CreateConnectLinkRequest {
        tenant_id: "acme".into(),
        oauth_client_id: "main".into(),
        account_id: account.into(),
        ..Default::default()
    };
    connections.create_connect_link(request).await.unwrap().into_inner().url
}

#[tokio::test]
async fn a_customer_follows_a_link_to_a_connection_once() {
    let world = World::start().await;
    let link = link(&world, "").await;
    let mut browser = Browser::new(&world);
    for _ in 0..2 {
        let page = browser.open(&link).await;
        assert_eq!(page.status(), 200);
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(
            policy.contains(&format!("form-action 'self' {};", world.sim.base_url().trim_end_matches('/'))),
            "{policy}"
        );
        let html = page.text().await.unwrap();
        assert!(
            html.contains("Example App") && html.contains("Acme Ltd") && html.contains("HubSpot"),
            "{html}"
        );
    }

    let callback = browser.decide(&link, "grant", "1234567").await;
    let stranger = Browser::new(&world);
    assert!(stranger.come_back(&callback).await.contains("This is not the browser that you started in"));
    let html = browser.come_back(&callback).await;
    assert!(html.contains("is connected") && html.contains("1234567") && html.contains("Acme Ltd"), "{html}");

    assert!(browser.come_back(&callback).await.contains("This answer came before"));
    let used = browser.open(&link).await;
    assert_eq!(used.status(), 410);
    assert!(used.text().await.unwrap().contains("This link has done its work"));
}

#[tokio::test]
async fn a_customer_who_declines_or_chooses_wrongly_can_use_the_link_again() {
    let world = World::start().await;
    let link = link(&world, "1234567").await;
    let mut browser = Browser::new(&world);
    let callback = browser.decide(&link, "cancel", "1234567").await;
    assert!(browser.come_back(&callback).await.contains("You did not allow the access"));

    let callback = browser.decide(&link, "grant", "7654321").await;
    let html = browser.come_back(&callback).await;
    assert!(html.contains("That was another account"), "{html}");

    let callback = browser.decide(&link, "grant", "1234567").await;
    assert!(browser.come_back(&callback).await.contains("is connected"));
}

#[tokio::test]
async fn addresses_that_were_made_up_connect_nothing() {
    let world = World::start().await;
    let browser = Browser::new(&world);
    for callback in ["?code=x&state=made-up", "?state=", "", "?error=access_denied", "?code=a&code=b"] {
        let html = browser.come_back(&format!("{PUBLIC_URL}/oauth/main/callback{callback}")).await;
        assert!(html.contains("What you can do"), "{callback}");
    }
    let unknown = browser.open(&format!("{PUBLIC_URL}/connect/made-up")).await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(world.sim.handle().stats().code_exchanges, 0);
}
