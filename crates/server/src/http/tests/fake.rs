use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use parking_lot::Mutex;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokenward_broker::{Callback, ConnectPage, Error, FinishedConnect, Reason, StartedConnect};
use tokenward_types::{AccountId, Clock, ManualClock, Rng, Scopes, SystemRng, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use url::Url;

use crate::admission::{Admission, Waiting};
use crate::http::flow::ConnectFlow;
use crate::http::public::{Pages, router};
use crate::http::surround::PageMetrics;

/// Where browsers reach the pages, whatever the Host header says.
pub(super) const PUBLIC_URL: &str = "https://connect.example.com";
/// A link's secret.
pub(super) const SECRET: &str = "lInK-sEcReT_0123456789";
/// A callback's code.
pub(super) const CODE: &str = "c0de-hunter2";

/// What the flow was asked, and what it answers.
pub(super) struct Script {
    pub(super) page: Mutex<Result<ConnectPage, Error>>,
    pub(super) finish: Mutex<VecDeque<Result<FinishedConnect, Error>>>,
    pub(super) seen: Mutex<Vec<String>>,
    pub(super) clock: ManualClock,
    pub(super) hangs: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            page: Mutex::new(Ok(page())),
            finish: Mutex::default(),
            seen: Mutex::default(),
            clock: ManualClock::new(Timestamp::from_secs(1_700_000_000)),
            hangs: false,
        }
    }
}

impl Script {
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }
}

/// A flow that follows a script.
pub(super) struct Flow(Arc<Script>);

/// Pages over a scripted flow.
pub(super) fn pages(script: &Arc<Script>) -> Pages<Flow> {
    let places = Admission::new(100, "page", "too many requests at once", &Waiting::default());
    Pages::new(Flow(Arc::clone(script)), &Url::parse(PUBLIC_URL).unwrap(), places)
}

impl ConnectFlow for Flow {
    fn clock(&self) -> &dyn Clock {
        &self.0.clock
    }

    fn rng(&self) -> &dyn Rng {
        &SystemRng
    }

    async fn page(&self, link_secret: &str) -> Result<ConnectPage, Error> {
        self.0.seen.lock().push(format!("page {link_secret}"));
        self.0.page.lock().clone()
    }

    async fn start(&self, link_secret: &str) -> Result<StartedConnect, Error> {
        self.0.seen.lock().push(format!("start {link_secret}"));
        self.0.page.lock().clone()?;
        Ok(StartedConnect {
            authorize_url: Url::parse("https://app.hubspot.com/oauth/authorize?state=abc").unwrap(),
            cookie_name: "__Host-tokenward-1".to_owned(),
            cookie_value: "cookie-value".to_owned().into(),
            cookie_secure: true,
            max_age: Duration::from_mins(10),
        })
    }

    async fn finish(&self, callback: Callback<'_>) -> Result<FinishedConnect, Error> {
        let Callback { oauth_client, code, state, error, iss, cookies } = callback;
        let call = format!("finish {oauth_client} {code:?} {state:?} {error:?} {iss:?} {cookies:?}");
        self.0.seen.lock().push(call);
        if self.0.hangs {
            std::future::pending::<()>().await;
        }
        self.0.finish.lock().pop_front().expect("the script has an answer")
    }
}

/// The pages on a socket of their own.
pub(super) struct Site {
    pub(super) script: Arc<Script>,
    pub(super) address: SocketAddr,
    pub(super) browser: Client,
    task: JoinHandle<()>,
}

impl Site {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Script)) -> Self {
        let mut script = Script::default();
        change(&mut script);
        Self::serving(Arc::new(script), PageMetrics::default()).await
    }

    pub(super) async fn counting(metrics: PageMetrics) -> Self {
        Self::serving(Arc::new(Script::default()), metrics).await
    }

    async fn serving(script: Arc<Script>, metrics: PageMetrics) -> Self {
        let mut pages = pages(&script);
        pages.metrics = metrics;
        let (address, task) = serve(router(Arc::new(pages))).await;
        Self { script, address, browser: browser(), task }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        self.browser.get(self.url(path)).send().await.unwrap()
    }

    /// Comes back from the provider, and returns the path of the result page.
    pub(super) async fn come_back(&self, answer: Result<FinishedConnect, Error>) -> String {
        self.script.finish.lock().push_back(answer);
        let response = self.get(&format!("/oauth/main/callback?code={CODE}&state=s")).await;
        assert_eq!(response.status(), 303);
        let location = response.headers()["location"].to_str().unwrap();
        location.strip_prefix(PUBLIC_URL).expect("an address of the public URL").to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A browser that follows no redirect, so that tests see them.
pub(super) fn browser() -> Client {
    Client::builder().no_proxy().redirect(Policy::none()).build().unwrap()
}

/// Serves a router on loopback.
pub(super) async fn serve(router: Router) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

/// A link's page.
pub(super) fn page() -> ConnectPage {
    ConnectPage {
        tenant_name: "Acme Corporation".to_owned(),
        provider_name: "HubSpot".to_owned(),
        client_name: "Contact Sync".to_owned(),
        account: None,
        scopes: Scopes::new(["crm.objects.contacts.read", "oauth"]).unwrap(),
        optional_scopes: Scopes::new(["crm.objects.deals.read"]).unwrap(),
        authorize_origin: "https://app.hubspot.com".to_owned(),
    }
}

/// A connection that was made.
pub(super) fn connected() -> FinishedConnect {
    FinishedConnect {
        tenant_name: "Acme Corporation".to_owned(),
        provider_name: "HubSpot".to_owned(),
        account: AccountId::parse("4242").unwrap(),
        account_name: "acme.example".to_owned(),
        return_url: None,
    }
}

/// A failure whose log detail no page may show.
pub(super) fn refused(reason: Reason) -> Error {
    Error::new(reason, "message-for-callers").internal("internal-hunter2")
}
