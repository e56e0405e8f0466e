//! Compiles the API's definitions with protox, so that a build needs no protoc.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const ROOT: &str = "../../proto";
const FILES: [&str; 7] = [
    "tokenward/v1/token_service.proto",
    "tokenward/admin/v1/access_rule_service.proto",
    "tokenward/admin/v1/connection_service.proto",
    "tokenward/admin/v1/key_service.proto",
    "tokenward/admin/v1/oauth_client_service.proto",
    "tokenward/admin/v1/principal_service.proto",
    "tokenward/admin/v1/tenant_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let descriptors = protox::compile(FILES, [ROOT])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // These messages carry tokens or secrets: the generated Debug would print them.
        .skip_debug([
            "tokenward.v1.GetTokenResponse",
            "tokenward.admin.v1.ConnectLink",
            "tokenward.admin.v1.CreateOAuthClientRequest",
            "tokenward.admin.v1.AddClientSecretRequest",
            "tokenward.admin.v1.ImportedRefreshToken",
            "tokenward.admin.v1.ImportedStaticToken",
            "tokenward.admin.v1.IssueCallerTokenResponse",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
