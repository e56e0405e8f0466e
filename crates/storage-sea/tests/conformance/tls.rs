//! TLS to the database: the server's certificate and its name are checked when the URL says so.

use serde_json::{Value, json};
use tokenward_plugin::BuildError;
use tokenward_storage_sea::{mysql, postgres};
use tokenward_testkit::parts::missing;

use crate::fixtures::{build, mariadb_database, postgres_database};

/// Installs the one crypto provider, as the program does at its start.
fn install_crypto() {
    // Another test of this process was faster.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// The URL with other options, by the name that the certificate is for, or by an address that it is not for.
fn url(url: &str, host: &str, options: &str) -> String {
    let url = url.split('?').next().expect("a URL");
    format!("{}?{options}", url.replace("127.0.0.1", host))
}

fn told(result: Result<impl Sized, BuildError>) -> String {
    result.err().expect("the certificate is not accepted").to_string()
}

#[tokio::test]
async fn postgres_is_verified_by_its_certificate_authority_and_its_name() {
    install_crypto();
    let test = "tls::postgres_is_verified_by_its_certificate_authority_and_its_name";
    let Some(database) = postgres_database(test).await else { return };
    let authority = database.setting("ssl_ca_file").await;
    if authority.is_empty() {
        return missing("PostgreSQL", "with ssl = on and ssl_ca_file", test);
    }
    let try_open = async |host: &str, more: Value| {
        let mut values = json!({"url": url(&database.url(), host, "sslmode=verify-full")});
        values.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build(postgres(), values, false).await
    };
    let trusting = json!({"root_cert_file": authority});
    try_open("localhost", trusting.clone())
        .await
        .expect("authority and name are right")
        .migrate()
        .await
        .unwrap();
    let other_name = told(try_open("127.0.0.1", trusting).await);
    assert!(other_name.contains("TLS failed") && other_name.contains("check sslmode"), "{other_name}");
    let other_authority = told(try_open("localhost", json!({})).await);
    assert!(other_authority.contains("TLS failed"), "{other_authority}");
}

#[tokio::test]
async fn mysql_is_verified_by_its_certificate_authority_and_its_name() {
    install_crypto();
    let test = "tls::mysql_is_verified_by_its_certificate_authority_and_its_name";
    let Some(database) = mariadb_database(test).await else { return };
    let authority = database.names("SELECT COALESCE(@@ssl_ca, '') AS name").await.remove(0);
    if authority.is_empty() {
        return missing("MariaDB", "with ssl-ca, ssl-cert and ssl-key", test);
    }
    let try_open = async |host: &str, more: Value| {
        let mut values = json!({"url": url(&database.url(), host, "ssl-mode=VERIFY_IDENTITY")});
        values.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        build(mysql(), values, false).await
    };
    let trusting = json!({"root_cert_file": authority});
    try_open("localhost", trusting.clone())
        .await
        .expect("authority and name are right")
        .migrate()
        .await
        .unwrap();
    let other_name = told(try_open("127.0.0.1", trusting).await);
    assert!(other_name.contains("TLS failed") && other_name.contains("check ssl-mode"), "{other_name}");
    let other_authority = told(try_open("localhost", json!({})).await);
    assert!(other_authority.contains("TLS failed"), "{other_authority}");
}
