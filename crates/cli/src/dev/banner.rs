//! What a development run prints: where everything is, and calls to paste.

use std::path::Path;

use secrecy::ExposeSecret;

use super::demo::{self, Demo, Server};
use super::home::Home;

/// The text.
pub(super) fn text(home: &Home, server: &Server, demo: &Demo) -> String {
    let (grpc, admin) = (&server.addresses.service, &server.addresses.admin);
    let (http, hubspot, operations) = (&server.public_url, &server.hubspot, &server.addresses.operations);
    let scope = demo::SCOPES.join(" --scope ");
    let (tenant, other, provider, principal) =
        (demo::TENANT, demo::OTHER_TENANT, demo::PROVIDER, demo::principal());
    let account = &demo.account_id;
    let caller_file = quoted(&home.token_file("caller"));
    let (operator_file, admin_file) =
        (quoted(&home.token_file("operator")), quoted(&home.token_file("admin")));
    let request = serde_json::json!({ "tenant_id": tenant, "provider": provider, "scopes": demo::SCOPES });
    let link = demo.connect_link.expose_secret();
    let binary = binary();
    let get = format!(
        "{binary} token get {tenant} --scope {scope} --service-addr http://{grpc} --token-file {caller_file}"
    );
    format!(
        "\
Tokenward runs, with a stand-in HubSpot. For development only: the secrets below are printed on purpose.

  service API (gRPC)  {grpc}
  admin API (gRPC)    {admin}
  connect pages       {http}
  health, metrics     http://{operations}
  stand-in HubSpot    {hubspot}

Tenant \"{tenant}\" is connected to HubSpot account {account}; \"{principal}\" may have its tokens. Get one:

  {get}

The same by gRPC, and the contacts that the token opens:

  grpcurl -plaintext -H \"authorization: Bearer $(cat {caller_file})\" -d '{request}' {grpc} tokenward.v1.TokenService/GetToken
  curl -H \"authorization: Bearer $({get} --raw)\" {hubspot}/crm/v3/objects/contacts

Look around, as an operator ({operator_file}) or an admin ({admin_file}):

  {binary} connection list --addr http://{admin} --token-file {operator_file}

Connect tenant \"{other}\" by hand, in a browser on this machine:

  {link}

Stop with Ctrl-C.
"
    )
}

/// How this program was called, as far as it can be pasted.
fn binary() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| "tokenward".into());
    let folder = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(folder) {
        Ok(relative) => quoted(&Path::new(".").join(relative)),
        Err(_) => quoted(&path),
    }
}

/// A path as a POSIX shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:@".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted_into_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/a-b_c.d")), "/tmp/a-b_c.d");
        assert_eq!(quoted(Path::new("/tmp/it's here")), "'/tmp/it'\\''s here'");
    }
}
