//! TLS on every listener, and no plaintext where others can listen in.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokenward_tests::{Clients, Database, Scratch, Serve, Settings, Tokenward, World};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

/// A certificate authority and a certificate of it for this machine.
struct Certificates {
    ca_file: PathBuf,
    ca: String,
    cert_file: PathBuf,
    key_file: PathBuf,
}

fn certificates(folder: &Scratch) -> Certificates {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let cert = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let ca = authority.pem();
    Certificates {
        ca_file: folder.write("ca.pem", &ca),
        ca,
        cert_file: folder.write("cert.pem", &cert.pem()),
        key_file: folder.write("key.pem", &key.serialize_pem()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_speaks_tls_with_the_configured_certificate() {
    let folder = Scratch::new();
    let files = certificates(&folder);
    let configure = |settings: &mut Settings| {
        for listener in ["service", "admin", "public", "operations"] {
            settings
                .set(&format!("listen.{listener}.cert_file"), files.cert_file.display().to_string())
                .set(&format!("listen.{listener}.key_file"), files.key_file.display().to_string());
        }
        let url = settings.public_url().replace("http://", "https://");
        settings.set("public.url", url);
    };
    let world = World::bare(Database::sqlite(), configure, |_| {}).await;
    let admin = world.bootstrap_admin().await;

    // gRPC, with the authority and without.
    for address in [&world.server().addresses.service, &world.server().addresses.admin] {
        let address = format!("https://{address}");
        let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&files.ca));
        let endpoint = Endpoint::from_shared(address.clone()).unwrap();
        endpoint.clone().tls_config(trusting).unwrap().connect().await.unwrap();
        let wary = ClientTlsConfig::new().with_native_roots();
        endpoint.tls_config(wary).unwrap().connect().await.unwrap_err();
    }
    let channel = Endpoint::from_shared(format!("https://{}", world.server().addresses.admin)).unwrap();
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&files.ca));
    let channel = channel.tls_config(trusting).unwrap().connect().await.unwrap();
    let list = tokenward_api::admin::v1::ListTenantsRequest::default();
    Clients::over(channel, &admin).tenants().list_tenants(list.clone()).await.unwrap();
    Clients::new(&world.server().admin(), &admin).tenants().list_tenants(list).await.unwrap_err();

    // The command line, and HTTP.
    let token_file = folder.write("admin-token", &admin);
    let call = Tokenward::new("tenant list --output json")
        .env("TOKENWARD_ADDR", format!("https://{}", world.server().addresses.admin))
        .env("TOKENWARD_TOKEN_FILE", token_file.display().to_string());
    call.clone().run().await.fails(6);
    call.env("TOKENWARD_CA_FILE", files.ca_file.display().to_string()).run().await.json();
    let authority = reqwest::Certificate::from_pem(files.ca.as_bytes()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap();
    for path in [
        format!("https://{}/livez", world.server().addresses.operations),
        format!("https://{}/", world.server().addresses.public),
    ] {
        assert!(http.get(&path).send().await.unwrap().status().is_success(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plaintext_that_others_can_listen_in_on_needs_a_decision() {
    let folder = Scratch::new();
    let database = Database::sqlite();
    let mut settings = Settings::new(&folder, &database).await;
    for listener in ["service", "admin", "public", "operations"] {
        settings.set(&format!("listen.{listener}.address"), "0.0.0.0:0");
    }
    let said = Serve::call(&settings).run().await.fails(1);
    for listener in ["service", "admin", "public", "operations"] {
        assert!(said.contains(&format!("listen.{listener}")), "every problem at once:\n{said}");
    }
    assert!(said.contains("allow_plaintext"), "{said}");

    for listener in ["service", "admin", "public", "operations"] {
        settings.set(&format!("listen.{listener}.allow_plaintext"), true);
    }
    Serve::start(&settings).await.stop().await;
}
