//! What the tests on a real OpenBao share: an administrator, and an engine and a key of one's own for each test.
#![allow(dead_code, clippy::allow_attributes, reason = "each test binary uses a part of it")]
#![allow(clippy::expect_used, reason = "what cannot be set up fails its test")]

pub(crate) mod fake;
pub(crate) mod program;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokenward_crypto::{DataKeyMaterial, KeyBinding, KeyEncryption, WrappedKey};
use tokenward_plugin::{Registry, Section};

pub(crate) const BINDING: KeyBinding<'_> = KeyBinding { installation: "inst-1", scope: "acme", data_key: 7 };

/// A name that nothing else on the shared server has.
pub(crate) fn unique(what: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Opens the backend as a server would: from its section of the configuration.
pub(crate) async fn open(values: Value) -> Result<Arc<dyn KeyEncryption>, String> {
    let Value::Object(values) = values else { panic!("a section is an object") };
    let section = Section { at: "encryption".into(), name: "encryption".into(), values };
    let registry = Registry::new("encryption").with(tokenward_crypto_openbao::openbao());
    let prepared = registry.prepare("openbao", &section, &()).map_err(|problems| problems.to_string())?;
    prepared.build().await.map_err(|error| error.to_string())
}

pub(crate) async fn wrap(backend: &dyn KeyEncryption) -> WrappedKey {
    let newest = backend.status().await.expect("it tells its keys").newest;
    let key = DataKeyMaterial::from_bytes([0x5a; 32]);
    backend.wrap(&newest, &BINDING, &key).await.expect("it wraps")
}

/// The server's root.
pub(crate) struct Admin {
    pub(crate) address: String,
    client: reqwest::Client,
}

impl Admin {
    pub(crate) fn new(address: String) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { address, client }
    }

    /// A call that must succeed.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) async fn try_call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/v1/{path}", self.address);
        let method = method.parse().expect("a method");
        let request = self.client.request(method, url).header("x-vault-token", "root").json(&body);
        let response = request.send().await.expect("the server answers");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a text");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

/// An engine with a key, and a token that may do what the documentation says that Tokenward must be allowed to do.
pub(crate) struct Transit {
    pub(crate) admin: Admin,
    pub(crate) mount: String,
    pub(crate) policy: String,
    pub(crate) token: String,
}

impl Transit {
    pub(crate) async fn new(address: String) -> Self {
        let admin = Admin::new(address);
        let (mount, policy) = (unique("transit"), unique("policy"));
        admin.call("POST", &format!("sys/mounts/{mount}"), json!({"type": "transit"})).await;
        admin.call("PUT", &format!("sys/policies/acl/{policy}"), json!({"policy": documented(&mount)})).await;
        let created = admin
            .call("POST", "auth/token/create", json!({"policies": [policy], "ttl": "1h", "no_parent": true}))
            .await;
        let token = created["auth"]["client_token"].as_str().expect("a token").to_owned();
        let transit = Self { admin, mount, policy, token };
        transit.create_key().await;
        transit
    }

    pub(crate) fn key(&self) -> String {
        format!("{}/keys/tokenward", self.mount)
    }

    pub(crate) async fn create_key(&self) {
        self.admin.call("POST", &self.key(), json!({"type": "aes256-gcm96"})).await;
    }

    pub(crate) async fn delete_key(&self) {
        self.configure(json!({"deletion_allowed": true})).await;
        self.admin.call("DELETE", &self.key(), Value::Null).await;
    }

    pub(crate) async fn rotate(&self) {
        self.admin.call("POST", &format!("{}/rotate", self.key()), Value::Null).await;
    }

    pub(crate) async fn configure(&self, values: Value) {
        self.admin.call("POST", &format!("{}/config", self.key()), values).await;
    }

    /// The section of a configuration, without a way to authenticate.
    pub(crate) fn section(&self) -> Map<String, Value> {
        let values = json!({"address": self.admin.address, "mount": self.mount, "key": "tokenward"});
        values.as_object().expect("an object").clone()
    }

    pub(crate) fn with(&self, more: &Value) -> Value {
        let mut section = self.section();
        section.extend(more.as_object().expect("an object").clone());
        Value::Object(section)
    }

    pub(crate) async fn open(&self) -> Arc<dyn KeyEncryption> {
        open(self.with(&json!({"token": self.token}))).await.expect("the backend comes up")
    }
}

/// The policy of the documentation, for another mount.
fn documented(mount: &str) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plugins/encryption-openbao.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let policy = page.split("```hcl\n").nth(1).and_then(|rest| rest.split("```").next());
    let policy = policy.expect("the page shows the policy");
    assert!(policy.contains("\"transit/"), "the policy names the mount: {policy}");
    policy.replace("\"transit/", &format!("\"{mount}/"))
}
