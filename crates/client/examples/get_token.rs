//! Gets a token twice (the second comes from the cache) and says what it is, without showing it.
//!
//! Against `tokenward dev --ready-file dev.json`:
//!
//! ```sh
//! cargo run -p tokenward-client --example get_token -- --ready-file dev.json
//! ```
//!
//! Against any server: `get_token ADDRESS TOKEN_FILE TENANT [SCOPE…]`.

use std::error::Error;

use tokenward_client::{TokenClient, TokenRequest};

const USAGE: &str = "usage: get_token --ready-file FILE | get_token ADDRESS TOKEN_FILE TENANT [SCOPE...]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (client, request) = match words.as_slice() {
        ["--ready-file", path] => from_ready_file(path).await?,
        [address, token_file, tenant, scopes @ ..] => {
            let client =
                TokenClient::builder().address(*address).caller_token_file(*token_file).build().await?;
            (client, TokenRequest::new(*tenant).scopes(scopes.iter().copied()))
        }
        _ => return Err(USAGE.into()),
    };

    let token = client.get_token(&request).await?;
    println!("tenant:      {}", token.tenant_id());
    println!("provider:    {}", token.provider());
    println!("account:     {}", token.account_id());
    println!("connection:  {}", token.connection_id());
    println!("scopes:      {}", token.scopes().join(" "));
    println!("fingerprint: {}", token.fingerprint());
    if let Some(expiry) = token.expires_at() {
        println!("expires in:  {} s", expiry.duration_since(tokio::time::Instant::now()).as_secs());
    } else {
        println!("expires in:  never");
    }
    for warning in token.warnings() {
        println!("warning:     {}", warning.message);
    }

    let again = client.get_token(&request).await?;
    println!("again:       {} (from the cache)", again.fingerprint());
    Ok(())
}

/// What `tokenward dev` writes: addresses, tenant, and a caller token.
async fn from_ready_file(path: &str) -> Result<(TokenClient, TokenRequest), Box<dyn Error>> {
    let ready: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let text = |key: &str| ready[key].as_str().ok_or_else(|| format!("{path} has no {key}"));
    let client = TokenClient::builder()
        .address(text("grpc")?)
        .caller_token(text("caller_token")?.to_owned().into())
        .build()
        .await?;
    let scopes = ready["scopes"].as_array().into_iter().flatten().filter_map(|scope| scope.as_str());
    Ok((client, TokenRequest::new(text("tenant_id")?).provider(text("provider")?).scopes(scopes)))
}
