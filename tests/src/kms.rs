//! A stand-in for AWS KMS, asked without AWS's libraries.

use serde_json::{Value, json};

/// The region of its keys.
pub const REGION: &str = "eu-central-1";

/// Where it listens.
pub struct Kms(pub String);

impl Kms {
    /// A call that must succeed.
    pub async fn call(&self, action: &str, request: Value) -> Value {
        // It finds region and service here, and checks no signature.
        let scope = format!("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/{REGION}/kms/aws4_request");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let call = client
            .post(&self.0)
            .header("X-Amz-Target", format!("TrentService.{action}"))
            .header("Content-Type", "application/x-amz-json-1.1")
            .header("Authorization", format!("{scope}, SignedHeaders=host, Signature=0"))
            .body(request.to_string());
        let answer = call.send().await.expect("it answers");
        let (status, text) = (answer.status(), answer.text().await.expect("a text"));
        assert!(status.is_success(), "{action}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Makes a key; its identifier.
    pub async fn new_key(&self) -> String {
        let made = self.call("CreateKey", json!({})).await;
        made["KeyMetadata"]["KeyId"].as_str().expect("it has an identifier").to_owned()
    }
}
