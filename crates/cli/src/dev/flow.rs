//! Walks the connect flow as a customer's browser does: link page, start, consent, callback, result.

use std::time::Duration;

use reqwest::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Client, Response, StatusCode, redirect};
use secrecy::SecretString;
use url::Url;

use super::demo::link_url;
use crate::failure::Failure;

const TIMEOUT: Duration = Duration::from_secs(15);

/// Opens `link` and consents at the stand-in for `account`.
pub(super) async fn connect(link: &SecretString, hubspot: &str, account: &str) -> Result<(), Failure> {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT)
        .build()
        .map_err(|error| at("the HTTP client", &error))?;
    let link = link_url(link)?;

    // 1. The link's page only shows what it is for.
    let page = client.get(link.clone()).send().await.map_err(|error| at("the link's page", &error))?;
    expect(&page, StatusCode::OK, "the link's page")?;

    // 2. Its button leads to the vendor, and ties the attempt to this browser by a cookie.
    let origin = link.origin().ascii_serialization();
    let started = client
        .post(link)
        .header(ORIGIN, origin)
        .send()
        .await
        .map_err(|error| at("the link's button", &error))?;
    expect(&started, StatusCode::SEE_OTHER, "the link's button")?;
    let cookie = cookie(&started)?;
    let authorize = location(&started, "the link's button")?;

    // 3. The customer picks the account and consents.
    let page = client.get(authorize.clone()).send().await.map_err(|error| at("the consent page", &error))?;
    expect(&page, StatusCode::OK, "the consent page")?;
    let mut form: Vec<(String, String)> = authorize.query_pairs().into_owned().collect();
    form.push(("hub_id".to_owned(), account.to_owned()));
    form.push(("decision".to_owned(), "grant".to_owned()));
    let decision = format!("{hubspot}/oauth/authorize/decision");
    let granted =
        client.post(decision).form(&form).send().await.map_err(|error| at("the consent", &error))?;
    expect(&granted, StatusCode::FOUND, "the consent")?;

    // 4. Back with a code, which is exchanged; the result page says how it went.
    let callback = location(&granted, "the consent")?;
    let finished = client
        .get(callback)
        .header(COOKIE, cookie)
        .send()
        .await
        .map_err(|error| at("the callback", &error))?;
    expect(&finished, StatusCode::SEE_OTHER, "the callback")?;
    let result = location(&finished, "the callback")?;
    let page = client.get(result).send().await.map_err(|error| at("the result page", &error))?;
    expect(&page, StatusCode::OK, "the result page")
}

/// The URL may hold a code or a link, so it is not part of the message.
fn at(step: &str, error: &reqwest::Error) -> Failure {
    let kind = if error.is_timeout() { "timed out" } else { "failed" };
    Failure::new(format!("the demo tenant cannot be connected: {step} {kind}"))
}

fn expect(response: &Response, status: StatusCode, step: &str) -> Result<(), Failure> {
    if response.status() == status {
        return Ok(());
    }
    let got = response.status();
    Err(Failure::new(format!(
        "the demo tenant cannot be connected: {step} answered {got} instead of {status}"
    )))
}

fn location(response: &Response, step: &str) -> Result<Url, Failure> {
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    location
        .and_then(|location| response.url().join(location).ok())
        .ok_or_else(|| Failure::new(format!("the demo tenant cannot be connected: {step} leads nowhere")))
}

fn cookie(response: &Response) -> Result<String, Failure> {
    let cookie = response.headers().get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
    cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_owned).ok_or_else(|| {
        Failure::new("the demo tenant cannot be connected: no cookie ties the attempt to the browser")
    })
}
