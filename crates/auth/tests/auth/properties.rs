//! Whatever a caller sends, nothing panics and nothing but a whole good token is accepted.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use tokenward_auth::{
    AuthSettings, Authenticator, BuiltinIssuer, BuiltinSettings, DEFAULT_LIFETIME, Role, bearer_token,
};
use tokenward_types::{ExposeSecret, SeededRng};

use crate::support::*;

/// An authenticator and a token that it accepts.
fn setup() -> (Authenticator, String) {
    let (pkcs8, public, kid) = BuiltinIssuer::generate_key();
    let issuer = BuiltinIssuer::from_keys(vec![(kid, pkcs8, public)], BuiltinSettings::default()).unwrap();
    let clock = clock();
    let made = issuer.issue("billing", Role::Admin, DEFAULT_LIFETIME, &SeededRng::new(1), &clock).unwrap();
    let keys = Some(issuer.verification_keys());
    let auth = Authenticator::new(vec![], keys, Arc::new(clock), AuthSettings::default()).unwrap();
    (auth, made.token.expose_secret().to_owned())
}

fn authenticates(auth: &Authenticator, bearer: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    auth.cached(bearer).is_some() || runtime.block_on(auth.authenticate(bearer)).is_ok()
}

/// JSON of the shape and names that tokens have, with values that they should not.
fn odd_claims() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(Value::from("tokenward")),
        Just(Value::from("EdDSA")),
        ".{0,20}".prop_map(Value::from),
        proptest::collection::vec(".{0,5}", 0..3).prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("iss"),
        Just("aud"),
        Just("exp"),
        Just("nbf"),
        Just("iat"),
        Just("sub"),
        Just("alg"),
        Just("kid"),
        Just("crit"),
        Just("tokenward_role"),
    ];
    proptest::collection::vec((name.prop_map(str::to_owned), value), 0..8)
        .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into())
}

#[test]
fn arbitrary_bytes_never_panic_and_never_authenticate() {
    let (auth, good) = setup();
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..400))| {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert!(!authenticates(&auth, &text));
        let header = [b"Bearer ", &*bytes].concat();
        if let Ok(token) = bearer_token(Some(&header)) {
            prop_assert!(!authenticates(&auth, token));
        }
    });
    assert!(authenticates(&auth, &good), "the control: the good token is accepted");
}

#[test]
fn odd_headers_and_claims_never_panic_and_never_authenticate() {
    let (auth, good) = setup();
    let good_header = good.split('.').next().unwrap().to_owned();
    proptest!(|(header in odd_claims(), claims in odd_claims(), signature in proptest::collection::vec(any::<u8>(), 0..70))| {
        let tail = format!("{}.{}", base64url(claims.to_string()), base64url(signature));
        let odd = format!("{}.{tail}", base64url(header.to_string()));
        prop_assert!(!authenticates(&auth, &odd));
        let forged = format!("{good_header}.{tail}");
        prop_assert!(!authenticates(&auth, &forged));
    });
}

#[test]
fn a_good_token_with_any_one_character_changed_is_refused() {
    let (auth, good) = setup();
    proptest!(|(place in 0..good.len(), other in "[A-Za-z0-9_.=-]")| {
        let mut changed = good.clone();
        changed.replace_range(place..=place, &other);
        prop_assert_eq!(authenticates(&auth, &changed), changed == good);
    });
    assert!(authenticates(&auth, &good));
}

#[test]
fn signed_but_odd_claims_never_panic_and_never_give_a_foreign_principal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let signer = Signer::ed25519();
    std::fs::write(&path, jwks(&[signer.jwk("k1")])).unwrap();
    let source = tokenward_auth::JwksSource::File(path);
    let auth =
        authenticator(vec![tokenward_auth::IssuerConfig::new("corp", ISS, AUDIENCE, source)], &clock());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    proptest!(|(odd in odd_claims(), sub in ".{0,10}")| {
        let mut all = claims(&sub);
        for (name, value) in odd.as_object().unwrap() {
            all[name] = value.clone();
        }
        if let Ok(caller) = runtime.block_on(auth.authenticate(&signer.token("EdDSA", "k1", &all))) {
            prop_assert!(caller.principal.as_str().starts_with("corp:"));
            prop_assert_eq!(caller.role, Role::Service);
        }
    });
}
