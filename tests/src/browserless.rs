//! The connect flow step by step, as a browser walks it but without one: link page, start, consent, callback, result.

use reqwest::header::{COOKIE, HeaderMap, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Client, Response, StatusCode, redirect};
use url::Url;

use crate::PATIENCE;

/// What the customer does at the vendor's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Grants access to an account.
    Grant(u64),
    /// Declines.
    Decline,
}

/// An attempt that was started: the customer stands at the vendor's page.
#[derive(Clone, Debug)]
pub struct Walk {
    http: Client,
    /// The vendor's page.
    pub authorize: Url,
    /// What ties the attempt to the browser, as a `Cookie` header.
    pub cookie: String,
}

/// A page that a browser ends at.
#[derive(Clone, Debug)]
pub struct Landed {
    /// Its status.
    pub status: StatusCode,
    /// Its address.
    pub url: Url,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its HTML.
    pub html: String,
}

impl Walk {
    /// Opens a link and presses its button.
    pub async fn start(link: &str) -> Self {
        let http = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(PATIENCE).build();
        let http = http.expect("an HTTP client can be made");
        let page = http.get(link).send().await.expect("the link's page answers");
        assert_eq!(page.status(), StatusCode::OK, "the link's page");
        let origin = page.url().origin().ascii_serialization();
        let started = http.post(link).header(ORIGIN, origin).send().await.expect("the button answers");
        assert_eq!(started.status(), StatusCode::SEE_OTHER, "the link's button");
        let cookie = started.headers()[SET_COOKIE].to_str().expect("a cookie is ASCII");
        let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        let authorize = location(&started);
        Self { http, authorize, cookie }
    }

    /// Decides at the vendor's page; gives the callback's address, with code or error and state.
    pub async fn decide(&self, consent: Consent) -> Url {
        let page = self.http.get(self.authorize.clone()).send().await.expect("the consent page answers");
        assert_eq!(page.status(), StatusCode::OK, "the consent page");
        let mut form: Vec<(String, String)> = self.authorize.query_pairs().into_owned().collect();
        match consent {
            Consent::Grant(hub_id) => {
                form.push(("hub_id".into(), hub_id.to_string()));
                form.push(("decision".into(), "grant".into()));
            }
            Consent::Decline => form.push(("decision".into(), "cancel".into())),
        }
        let decision = self.authorize.join("/oauth/authorize/decision").expect("a path joins");
        let decided = self.http.post(decision).form(&form).send().await.expect("the consent answers");
        assert_eq!(decided.status(), StatusCode::FOUND, "the consent");
        location(&decided)
    }

    /// Goes back to the gateway, and on to where it leads.
    pub async fn finish(&self, callback: Url) -> Landed {
        let mut response = self.open(callback).await;
        if response.status() == StatusCode::SEE_OTHER {
            response = self.open(location(&response)).await;
        }
        let (status, url, headers) = (response.status(), response.url().clone(), response.headers().clone());
        Landed { status, url, headers, html: response.text().await.expect("a page can be read") }
    }

    async fn open(&self, url: Url) -> Response {
        let request = self.http.get(url).header(COOKIE, &self.cookie);
        request.send().await.expect("the gateway answers")
    }
}

fn location(response: &Response) -> Url {
    let location = response.headers().get(LOCATION).expect("it leads somewhere");
    response.url().join(location.to_str().expect("an address is ASCII")).expect("it is an address")
}
