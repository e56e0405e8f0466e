//! A running stand-in with a client that follows no redirect and uses no proxy.

use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect::Policy};
use serde_json::Value;
use tokenward_hubspot_sim::{
    ClockKind, CreatedGrant, GrantRequest, HubspotSim, Rotation, RunningSim, SettingsPatch, SimConfig,
    SimHandle,
};

pub(crate) const REDIRECT: &str = "http://localhost:8080/callback";
pub(crate) const HUB: u64 = 1_234_567;
pub(crate) const DATED: &str = "/oauth/2026-03/token";

pub(crate) struct Fixture {
    pub(crate) sim: RunningSim,
    pub(crate) http: Client,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
}

/// The demo app and accounts, with a clock that stands still.
pub(crate) async fn start() -> Fixture {
    let config = SimConfig { clock: ClockKind::Manual, seed: Some(1), ..SimConfig::demo([REDIRECT]) };
    let (client_id, client_secret) = (config.apps[0].client_id.clone(), config.apps[0].client_secret.clone());
    let sim = HubspotSim::start(config).await.unwrap();
    let http = Client::builder().redirect(Policy::none()).no_proxy().build().unwrap();
    Fixture { sim, http, client_id, client_secret }
}

impl Fixture {
    pub(crate) fn handle(&self) -> &SimHandle {
        self.sim.handle()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.sim.base_url())
    }

    pub(crate) fn set(&self, patch: SettingsPatch) {
        self.handle().change_settings(patch);
    }

    pub(crate) fn rotate(&self, rotation: Rotation) {
        self.set(SettingsPatch { rotation: Some(rotation), ..SettingsPatch::default() });
    }

    /// A consent without clicks.
    pub(crate) fn grant(&self) -> CreatedGrant {
        self.grant_with(&["oauth", "crm.objects.contacts.read"])
    }

    pub(crate) fn grant_with(&self, scopes: &[&str]) -> CreatedGrant {
        let request = GrantRequest {
            client_id: self.client_id.clone(),
            hub_ids: vec![HUB],
            scopes: Some(scopes.iter().map(|&s| s.into()).collect()),
            ..GrantRequest::default()
        };
        self.handle().create_grants(&request).unwrap().remove(0)
    }

    /// A form with the right credentials and these fields.
    pub(crate) fn form(&self, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
        let mut all =
            vec![("client_id", self.client_id.as_str()), ("client_secret", self.client_secret.as_str())];
        all.extend_from_slice(fields);
        self.http.post(self.url(path)).form(&all)
    }

    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> (StatusCode, Value) {
        answer(self.form(path, fields).send().await.unwrap()).await
    }

    pub(crate) fn refresh_request(&self, token: &str) -> RequestBuilder {
        self.form(DATED, &[("grant_type", "refresh_token"), ("refresh_token", token)])
    }

    pub(crate) async fn refresh(&self, token: &str) -> (StatusCode, Value) {
        answer(self.refresh_request(token).send().await.unwrap()).await
    }

    /// The new refresh token, or HubSpot's word for why there is none.
    pub(crate) async fn spend(&self, token: &str) -> Result<String, String> {
        let (status, body) = self.refresh(token).await;
        if status == StatusCode::OK { Ok(text(&body["refresh_token"])) } else { Err(text(&body["status"])) }
    }

    pub(crate) async fn contacts(&self, bearer: &str, query: &str) -> (StatusCode, Value) {
        let url = self.url(&format!("/crm/v3/objects/contacts{query}"));
        answer(self.http.get(url).bearer_auth(bearer).send().await.unwrap()).await
    }

    pub(crate) async fn introspect(&self, token: &str) -> Value {
        let (status, body) = self.post("/oauth/2026-03/token/introspect", &[("token", token)]).await;
        assert_eq!(status, StatusCode::OK);
        body
    }
}

/// Status and JSON body (`null` when there is none).
pub(crate) async fn answer(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
