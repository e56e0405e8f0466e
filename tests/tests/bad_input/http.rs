//! Pages and endpoints, asked for without a browser.

use tokenward_tests::PATIENCE;

/// A client that follows nothing by itself.
pub(crate) fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.timeout(PATIENCE).build().unwrap()
}

/// The answer to a GET.
pub(crate) async fn get(url: String) -> reqwest::Result<reqwest::Response> {
    client().get(url).send().await
}
