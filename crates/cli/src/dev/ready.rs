//! The ready file: what the banner says, for programs.

use std::path::Path;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::demo::{self, Demo, Server};
use super::home::write_private;
use crate::failure::Failure;

/// Writes the file whole, once everything runs.
pub(super) fn write(path: &Path, server: &Server, demo: &Demo) -> Result<(), Failure> {
    write_private(path, &format!("{:#}\n", content(server, demo)).into())
}

fn content(server: &Server, demo: &Demo) -> Value {
    json!({
        "grpc": server.addresses.service,
        "admin_grpc": server.addresses.admin,
        "http": server.public_url,
        "operations": format!("http://{}", server.addresses.operations),
        "hubspot": server.hubspot,
        "tenant_id": demo::TENANT,
        "provider": demo::PROVIDER,
        "scopes": demo::SCOPES,
        "oauth_client_id": demo::OAUTH_CLIENT,
        "connection_id": demo.connection_id,
        "account_id": demo.account_id,
        "principal": demo::principal(),
        "caller_token": server.tokens.caller.expose_secret(),
        "operator_token": server.tokens.operator.expose_secret(),
        "admin_token": server.tokens.admin.expose_secret(),
        "unconnected_tenant_id": demo::OTHER_TENANT,
        "connect_link": demo.connect_link.expose_secret(),
    })
}
