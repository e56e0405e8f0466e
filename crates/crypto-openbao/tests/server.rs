//! Ways to authenticate, and what an operator can do to a key or a server: on a real OpenBao.
#![expect(clippy::expect_used, reason = "what cannot be set up fails its test")]

mod support;

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use support::fake::{Fake, Reply};
use support::program::OwnServer;
use support::{BINDING, Transit, open, unique, wrap};
use tokenward_crypto::{CryptoError, CryptoErrorKind, DataKeyMaterial, KeyEncryption, WrappedKey};
use tokenward_testkit::parts;

async fn transit(test: &str) -> Option<Transit> {
    Some(Transit::new(parts::openbao_address(test)?).await)
}

async fn unwrap_error(backend: &dyn KeyEncryption, wrapped: &WrappedKey) -> CryptoError {
    backend.unwrap(&BINDING, wrapped).await.expect_err("it must fail")
}

async fn assert_unwraps(backend: &dyn KeyEncryption, wrapped: &WrappedKey) {
    let key = backend.unwrap(&BINDING, wrapped).await.expect("it unwraps");
    assert_eq!(key.expose(), &[0x5a; 32]);
}

async fn assert_wrap_fails(backend: &dyn KeyEncryption, kek: &str, kind: CryptoErrorKind, says: &str) {
    let key = DataKeyMaterial::from_bytes([1; 32]);
    let error = backend.wrap(kek, &BINDING, &key).await.expect_err("it must fail");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

/// An AppRole of one's own: its mount, and the options that log in with it.
async fn approle(transit: &Transit) -> (String, Value) {
    let (admin, mount) = (&transit.admin, unique("approle"));
    admin.call("POST", &format!("sys/auth/{mount}"), json!({"type": "approle"})).await;
    let role = format!("auth/{mount}/role/tokenward");
    admin.call("POST", &role, json!({"token_policies": transit.policy, "token_ttl": "1h"})).await;
    let role_id = admin.call("GET", &format!("{role}/role-id"), Value::Null).await["data"]["role_id"].clone();
    let secret_id = admin.call("POST", &format!("{role}/secret-id"), json!({})).await;
    let secret_id = secret_id["data"]["secret_id"].clone();
    let options = json!({"approle_mount": mount, "role_id": role_id, "secret_id": secret_id});
    (mount, options)
}

#[tokio::test]
async fn approle_logs_in_and_again_when_its_token_is_revoked() {
    let Some(transit) = transit("approle_logs_in_and_again_when_its_token_is_revoked").await else { return };
    let (mount, options) = approle(&transit).await;
    let backend = open(transit.with(&options)).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    let revoke = format!("sys/leases/revoke-prefix/auth/{mount}/login");
    transit.admin.call("PUT", &revoke, json!({"sync": true})).await;
    assert_unwraps(&*backend, &wrapped).await;
}

#[tokio::test]
async fn a_secret_id_that_was_taken_back_is_told_and_a_new_one_in_its_file_heals() {
    let test = "a_secret_id_that_was_taken_back_is_told_and_a_new_one_in_its_file_heals";
    let Some(transit) = transit(test).await else { return };
    let (mount, mut options) = approle(&transit).await;
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    let first = options["secret_id"].as_str().expect("a text").to_owned();
    std::fs::write(file.path(), format!("{first}\n")).expect("the file takes it");
    options["secret_id"] = Value::Null;
    options["secret_id_file"] = json!(file.path());
    let backend = open(transit.with(&options)).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    let role = format!("auth/{mount}/role/tokenward");
    let destroy = format!("{role}/secret-id/destroy");
    transit.admin.call("POST", &destroy, json!({"secret_id": first})).await;
    let revoke = format!("sys/leases/revoke-prefix/auth/{mount}/login");
    transit.admin.call("PUT", &revoke, json!({"sync": true})).await;
    let error = unwrap_error(&*backend, &wrapped).await;
    assert_eq!(error.kind(), CryptoErrorKind::Internal);
    let said = error.to_string();
    assert!(said.contains("AppRole login") && said.contains("secret-id") && !said.contains(&first), "{said}");
    let second = transit.admin.call("POST", &format!("{role}/secret-id"), json!({})).await;
    std::fs::write(file.path(), second["data"]["secret_id"].as_str().expect("a text")).expect("it takes it");
    assert_unwraps(&*backend, &wrapped).await;
}

#[tokio::test]
async fn a_revoked_token_is_told_and_a_new_one_in_its_file_heals() {
    let Some(transit) = transit("a_revoked_token_is_told_and_a_new_one_in_its_file_heals").await else {
        return;
    };
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    std::fs::write(file.path(), &transit.token).expect("the file takes it");
    let backend = open(transit.with(&json!({"token_file": file.path()}))).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    transit.admin.call("POST", "auth/token/revoke", json!({"token": transit.token})).await;
    let said = unwrap_error(&*backend, &wrapped).await.to_string();
    let remedy = format!("write another into {}", file.path().display());
    assert!(said.contains(&remedy) && !said.contains(&transit.token), "{said}");
    let created =
        transit.admin.call("POST", "auth/token/create", json!({"policies": [transit.policy]})).await;
    std::fs::write(file.path(), created["auth"]["client_token"].as_str().expect("a text"))
        .expect("it takes it");
    assert_unwraps(&*backend, &wrapped).await;
}

#[tokio::test]
async fn kubernetes_logs_in_with_the_token_of_the_service_account() {
    let Some(transit) = transit("kubernetes_logs_in_with_the_token_of_the_service_account").await else {
        return;
    };
    // The part of a Kubernetes API that OpenBao asks whether a token is good.
    let cluster = Fake::start(|seen, _| {
        let user = json!({
            "username": "system:serviceaccount:default:tokenward", "uid": "u1", "groups": ["system:serviceaccounts"],
        });
        let good = seen.body["spec"]["token"].as_str().is_some_and(|token| token.ends_with(".Z29vZA"));
        let status =
            if good { json!({"authenticated": true, "user": user}) } else { json!({"authenticated": false}) };
        let kind = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status});
        Reply::Json(201, kind)
    })
    .await;
    let (admin, mount) = (&transit.admin, unique("kubernetes"));
    admin.call("POST", &format!("sys/auth/{mount}"), json!({"type": "kubernetes"})).await;
    let authority = include_str!("support/authority.pem");
    let config = json!({
        "kubernetes_host": cluster.address, "token_reviewer_jwt": "a.b.c", "disable_local_ca_jwt": true,
        "kubernetes_ca_cert": authority,
    });
    admin.call("POST", &format!("auth/{mount}/config"), config).await;
    let role = json!({
        "bound_service_account_names": "tokenward", "bound_service_account_namespaces": "default",
        "token_policies": transit.policy, "token_ttl": "1h",
    });
    admin.call("POST", &format!("auth/{mount}/role/tokenward"), role).await;
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    std::fs::write(file.path(), service_account_token("bad")).expect("the file takes it");
    let options = json!({"kubernetes_role": "tokenward", "kubernetes_mount": mount, "kubernetes_token_file": file.path()});
    let said = open(transit.with(&options)).await.expect_err("the cluster does not know this token");
    assert!(said.contains("Kubernetes login") && said.contains("service account"), "{said}");
    // The file is read anew, as Kubernetes replaces it.
    std::fs::write(file.path(), service_account_token("good")).expect("the file takes it");
    let backend = open(transit.with(&options)).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    let revoke = format!("sys/leases/revoke-prefix/auth/{mount}/login");
    admin.call("PUT", &revoke, json!({"sync": true})).await;
    assert_unwraps(&*backend, &wrapped).await;
}

fn service_account_token(signature: &str) -> String {
    let account = json!({"name": "tokenward", "uid": "u1"});
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:tokenward", "iat": 1, "exp": 4_000_000_000_u64,
        "kubernetes.io": {"namespace": "default", "serviceaccount": account},
    });
    let parts = [json!({"alg": "RS256", "typ": "JWT"}).to_string(), claims.to_string(), signature.to_owned()];
    parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".")
}

#[tokio::test]
async fn a_namespace_is_where_the_engine_is() {
    let Some(address) = parts::openbao_address("a_namespace_is_where_the_engine_is") else { return };
    let admin = support::Admin::new(address);
    let namespace = unique("team");
    admin.call("POST", &format!("sys/namespaces/{namespace}"), json!({})).await;
    admin.call("POST", &format!("{namespace}/sys/mounts/transit"), json!({"type": "transit"})).await;
    admin.call("POST", &format!("{namespace}/transit/keys/tokenward"), json!({"type": "aes256-gcm96"})).await;
    let options = json!({"address": admin.address, "token": "root", "namespace": namespace});
    let backend = open(options).await.expect("it comes up");
    let wrapped = wrap(&*backend).await;
    assert_unwraps(&*backend, &wrapped).await;
    let mut outside = json!({"address": admin.address, "token": "root", "key": unique("key")});
    outside["mount"] = json!(unique("nowhere"));
    open(outside).await.expect_err("there is no such engine outside");
}

#[tokio::test]
async fn a_deleted_key_is_unknown_and_nothing_makes_another_in_its_place() {
    let test = "a_deleted_key_is_unknown_and_nothing_makes_another_in_its_place";
    let Some(transit) = transit(test).await else { return };
    let backend = transit.open().await;
    let wrapped = wrap(&*backend).await;
    transit.delete_key().await;
    let error = unwrap_error(&*backend, &wrapped).await;
    assert_eq!(error.kind(), CryptoErrorKind::UnknownKey, "{error}");
    let said = error.to_string();
    assert!(said.contains(&wrapped.kek) && said.contains("Restore it from a backup"), "{said}");
    assert!(said.starts_with("openbao: ") && said.matches("openbao: ").count() == 1, "{said}");
    assert_wrap_fails(&*backend, &wrapped.kek, CryptoErrorKind::UnknownKey, "Restore it from a backup").await;
    let (status, _) = transit.admin.try_call("GET", &transit.key(), Value::Null).await;
    assert_eq!(status, 404, "the policy lets nobody make a key by encrypting");
    let error = backend.status().await.expect_err("there is none");
    assert_eq!(error.kind(), CryptoErrorKind::Internal, "{error}");
    let error = backend.create_version().await.expect_err("there is none");
    assert!(error.to_string().contains("there is no such key"), "{error}");
}

#[tokio::test]
async fn a_key_that_was_deleted_softly_is_unknown_until_it_is_restored() {
    let test = "a_key_that_was_deleted_softly_is_unknown_until_it_is_restored";
    let Some(transit) = transit(test).await else { return };
    let backend = transit.open().await;
    let wrapped = wrap(&*backend).await;
    transit.admin.call("DELETE", &format!("{}/soft-delete", transit.key()), Value::Null).await;
    let error = unwrap_error(&*backend, &wrapped).await;
    assert_eq!(error.kind(), CryptoErrorKind::UnknownKey, "{error}");
    assert!(error.to_string().contains("soft-delete-restore"), "{error}");
    assert_wrap_fails(&*backend, &wrapped.kek, CryptoErrorKind::UnknownKey, "soft-delete-restore").await;
    transit.admin.call("POST", &format!("{}/soft-delete-restore", transit.key()), Value::Null).await;
    assert_unwraps(&*backend, &wrapped).await;
}

#[tokio::test]
async fn a_version_that_was_put_aside_comes_back_by_what_the_message_says() {
    let test = "a_version_that_was_put_aside_comes_back_by_what_the_message_says";
    let Some(transit) = transit(test).await else { return };
    let backend = transit.open().await;
    let wrapped = wrap(&*backend).await;
    let second = backend.create_version().await.expect("the policy allows it");
    assert_eq!(second, format!("openbao:{}/tokenward:2", transit.mount));
    transit.configure(json!({"min_decryption_version": 2})).await;
    let error = unwrap_error(&*backend, &wrapped).await;
    assert_eq!(error.kind(), CryptoErrorKind::UnknownKey);
    let said = error.to_string();
    let remedy = format!("`bao write {}/config min_decryption_version=1`", transit.key());
    assert!(said.contains(&wrapped.kek) && said.contains(&remedy) && said.contains(&second), "{said}");
    transit.configure(json!({"min_decryption_version": 1})).await;
    assert_unwraps(&*backend, &wrapped).await;
    transit.configure(json!({"min_encryption_version": 2})).await;
    let remedy = "min_encryption_version=1` allows it";
    assert_wrap_fails(&*backend, &wrapped.kek, CryptoErrorKind::Internal, remedy).await;
}

#[tokio::test]
async fn what_a_policy_denies_is_named_and_allowing_it_heals() {
    let Some(transit) = transit("what_a_policy_denies_is_named_and_allowing_it_heals").await else { return };
    let backend = transit.open().await;
    let wrapped = wrap(&*backend).await;
    let policy = format!("sys/policies/acl/{}", transit.policy);
    let documented = transit.admin.call("GET", &policy, Value::Null).await["data"]["policy"].clone();
    let read = format!("path \"{}\" {{ capabilities = [\"read\"] }}", transit.key());
    for left in [read.as_str(), "path \"nothing\" { capabilities = [\"read\"] }"] {
        transit.admin.call("PUT", &policy, json!({ "policy": left })).await;
        let path = |operation: &str| {
            format!("path \"{}/{operation}/tokenward\" {{ capabilities = [\"update\"] }}", transit.mount)
        };
        let error = unwrap_error(&*backend, &wrapped).await;
        assert_eq!(error.kind(), CryptoErrorKind::Internal, "{error}");
        assert!(error.to_string().contains(&path("decrypt")), "{error}");
        assert_wrap_fails(&*backend, &wrapped.kek, CryptoErrorKind::Internal, &path("encrypt")).await;
        let error = backend.create_version().await.expect_err("it is denied");
        assert!(error.to_string().contains("/rotate\" { capabilities = [\"update\"] }"), "{error}");
    }
    let error = backend.status().await.expect_err("reading is denied too");
    assert!(error.to_string().contains(&read), "{error}");
    transit.admin.call("PUT", &policy, json!({ "policy": documented })).await;
    assert_unwraps(&*backend, &wrapped).await;
}

#[tokio::test]
async fn what_cannot_come_up_says_why() {
    let Some(transit) = transit("what_cannot_come_up_says_why").await else { return };
    let attempt = async |more: Value| open(transit.with(&more)).await.expect_err("it must not come up");
    let said = attempt(json!({"token": "s.wrong"})).await;
    assert!(said.contains("the token is not known, has expired or was revoked"), "{said}");
    let said = attempt(json!({"token": "root", "key": "absent"})).await;
    assert!(said.contains("there is no such key") && said.contains("type=aes256-gcm96"), "{said}");
    let said = attempt(json!({"token": "root", "mount": "nowhere"})).await;
    assert!(said.contains("bao secrets enable -path=nowhere transit"), "{said}");
    let said = attempt(json!({"role_id": "no", "secret_id": "hunter2"})).await;
    assert!(
        said.contains("AppRole login at auth/approle/login was refused") && !said.contains("hunter2"),
        "{said}"
    );
    let said = attempt(json!({"token": "hunter2\u{7f}"})).await;
    assert!(said.contains("characters that no token has") && !said.contains("hunter2"), "{said}");
    for (name, options, says) in [
        ("signing", json!({"type": "ed25519"}), "the key is of type \"ed25519\""),
        ("derived", json!({"type": "aes256-gcm96", "derived": true}), "derived"),
    ] {
        transit.admin.call("POST", &format!("{}/keys/{name}", transit.mount), options).await;
        let said = attempt(json!({"token": "root", "key": name})).await;
        assert!(said.contains(says) && said.contains("type=aes256-gcm96"), "{said}");
    }
}

async fn own(program: &str, more: &[&str]) -> (OwnServer, Value) {
    let server = OwnServer::start(program, more).await;
    (server, json!({"token": "root"}))
}

async fn own_backend(server: &OwnServer) -> Arc<dyn KeyEncryption> {
    server.admin.call("POST", "sys/mounts/transit", json!({"type": "transit"})).await;
    server.admin.call("POST", "transit/keys/tokenward", json!({"type": "aes256-gcm96"})).await;
    open(json!({"address": server.address("http"), "token": "root"})).await.expect("it comes up")
}

#[tokio::test]
async fn a_sealed_server_is_told_as_such_and_unsealing_heals() {
    let Some(program) = parts::bao_program("a_sealed_server_is_told_as_such_and_unsealing_heals") else {
        return;
    };
    let (server, _) = own(&program, &[]).await;
    let backend = own_backend(&server).await;
    let wrapped = wrap(&*backend).await;
    server.admin.call("PUT", "sys/seal", Value::Null).await;
    let error = unwrap_error(&*backend, &wrapped).await;
    assert_eq!(error.kind(), CryptoErrorKind::Unavailable);
    assert!(error.to_string().contains("it is sealed: unseal it with `bao operator unseal`"), "{error}");
    let key = server.unseal_key().await;
    server.admin.call("PUT", "sys/unseal", json!({ "key": key })).await;
    assert_unwraps(&*backend, &wrapped).await;
}

#[tokio::test]
async fn a_server_that_is_gone_is_told_as_such() {
    let Some(program) = parts::bao_program("a_server_that_is_gone_is_told_as_such") else { return };
    let (mut server, _) = own(&program, &[]).await;
    let backend = own_backend(&server).await;
    let wrapped = wrap(&*backend).await;
    server.stop();
    let error = unwrap_error(&*backend, &wrapped).await;
    assert_eq!(error.kind(), CryptoErrorKind::Unavailable);
    let said = error.to_string();
    let expected = format!("openbao: key transit/tokenward at {}: cannot connect: ", server.address("http"));
    assert!(said.starts_with(&expected) && said.contains("Check that it runs"), "{said}");
    assert_wrap_fails(&*backend, &wrapped.kek, CryptoErrorKind::Unavailable, "cannot connect").await;
}

#[tokio::test]
async fn tls_needs_an_authority_that_is_trusted() {
    let Some(program) = parts::bao_program("tls_needs_an_authority_that_is_trusted") else { return };
    let folder = tempfile::tempdir().expect("a scratch folder");
    let tls = format!("-dev-tls-cert-dir={}", folder.path().display());
    let (server, _) = own(&program, &["-dev-tls", &tls]).await;
    let authority = folder.path().join("vault-ca.pem");
    let mut options = json!({"address": server.address("https"), "token": "root"});
    let said = open(options.clone()).await.expect_err("its authority is not trusted");
    assert!(said.contains("cannot connect") && said.contains("ca_file"), "{said}");
    options["ca_file"] = json!(authority);
    // TLS holds; what is wrong now is that nobody has made an engine.
    let said = open(options).await.expect_err("there is no engine");
    assert!(said.contains("bao secrets enable"), "{said}");
}
