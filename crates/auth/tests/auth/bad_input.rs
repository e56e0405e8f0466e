//! Every way in which a caller token can be wrong, each with its own reason and a text that helps.

use serde_json::{Value, json};
use tokenward_auth::AuthErrorReason::{self, *};
use tokenward_auth::{IssuerConfig, JwksSource, Role};

use crate::support::*;

/// Turned away for `reason`, the token cached nowhere and shown nowhere.
async fn refused(corp: &Corp, token: &str, reason: AuthErrorReason) -> String {
    let error = corp.auth.authenticate(token).await.unwrap_err();
    assert_eq!(error.reason(), reason, "{error:?}");
    assert!(corp.auth.cached(token).is_none());
    let shown = format!("{error} {error:?} {}", error.detail());
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!shown.contains(part), "the token shows in: {shown}");
    }
    assert!(error.public_message().ends_with('.'), "{error}");
    error.public_message().to_owned()
}

#[tokio::test]
async fn a_good_token_names_its_caller() {
    let corp = Corp::start().await;
    let caller = corp.auth.authenticate(&corp.token(&claims("billing"))).await.unwrap();
    assert_eq!(caller.principal.as_str(), "corp:billing");
    assert_eq!((caller.role, &*caller.issuer), (Role::Service, "corp"));
    assert_eq!(caller.expires_at.as_secs(), NOW + 3600);
}

#[tokio::test]
async fn every_supported_algorithm_verifies() {
    let signers = [Signer::ed25519(), Signer::p256(), Signer::p384(), Signer::rsa()];
    let algorithms: [&[&str]; 4] =
        [&["EdDSA"], &["ES256"], &["ES384"], &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]];
    let keys: Vec<Value> = signers.iter().enumerate().map(|(i, signer)| signer.jwk(&i.to_string())).collect();
    let server = JwksServer::start(Answer::Keys(jwks(&keys))).await;
    let auth = authenticator(vec![corp(&server.url())], &clock());
    for (kid, (signer, algorithms)) in signers.iter().zip(algorithms).enumerate() {
        for algorithm in algorithms {
            let token = signer.token(algorithm, &kid.to_string(), &claims("billing"));
            let verdict = auth.authenticate(&token).await;
            assert!(verdict.is_ok(), "{algorithm}: {verdict:?}");
            // The same signature under another name of the same key family does not count.
            let (_, rest) = token.split_once('.').unwrap();
            let other = if *algorithm == "RS256" { "PS256" } else { "RS256" };
            let renamed =
                format!("{}.{rest}", base64url(json!({"alg": other, "kid": kid.to_string()}).to_string()));
            assert!(auth.authenticate(&renamed).await.is_err(), "{algorithm} as {other}");
        }
    }
}

#[tokio::test]
async fn a_missing_token_is_told_how_to_send_one() {
    let corp = Corp::start().await;
    assert!(refused(&corp, "", Missing).await.contains("authorization: Bearer"));
}

#[tokio::test]
async fn malformed_tokens_are_refused() {
    let corp = Corp::start().await;
    let good = corp.token(&claims("billing"));
    let parts: Vec<&str> = good.split('.').collect();
    let unparsable = base64url("{");
    for token in [
        "x",
        "a.b",
        "..",
        "a.b.c.d.e",
        &good.replace('.', "="),
        &format!("{good}."),
        &format!("{} ", parts[..2].join(".")),
        &format!("{unparsable}.{}.{}", parts[1], parts[2]),
        &format!("{}.{unparsable}.{}", parts[0], parts[2]),
        &format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        &format!("{}.{}.{}", base64url("[]"), parts[1], parts[2]),
        &format!("Bearer {good}"),
        &"a".repeat(8193),
    ] {
        refused(&corp, token, Malformed).await;
    }
}

#[tokio::test]
async fn a_token_of_more_than_8_kib_is_refused_though_its_signature_is_right() {
    let corp = Corp::start().await;
    let of = |padding: usize| corp.token(&with(claims("billing"), "x", json!("x".repeat(padding))));
    refused(&corp, &of(8000), Malformed).await;
    assert!(corp.auth.authenticate(&of(5000)).await.is_ok());
}

#[tokio::test]
async fn critical_extensions_are_refused() {
    let corp = Corp::start().await;
    let header = json!({"alg": "EdDSA", "kid": "k1", "crit": ["exp"]});
    refused(&corp, &corp.signer.token_with(&header, &claims("billing")), Malformed).await;
}

#[tokio::test]
async fn unsigned_tokens_are_refused_by_name() {
    let corp = Corp::start().await;
    for none in ["none", "None", "NONE"] {
        let header = base64url(json!({"alg": none, "kid": "k1"}).to_string());
        let payload = base64url(claims("billing").to_string());
        for signature in ["", "AAAA"] {
            let message =
                refused(&corp, &format!("{header}.{payload}.{signature}"), UnsupportedAlgorithm).await;
            assert!(message.contains("alg none"), "{message}");
        }
    }
}

#[tokio::test]
async fn an_hmac_with_the_public_rsa_key_as_its_secret_is_refused() {
    let signer = Signer::rsa();
    let jwk = signer.jwk("k1");
    let secret = json!({"kty": "oct", "kid": "k2", "k": base64url("secret")});
    let server = JwksServer::start(Answer::Keys(jwks(&[jwk.clone(), secret]))).await;
    let clock = clock();
    let auth = authenticator(vec![corp(&server.url())], &clock);
    let corp = Corp { signer, server, clock, auth };
    assert!(corp.auth.authenticate(&corp.signer.token("RS256", "k1", &claims("billing"))).await.is_ok());
    for (kid, key) in
        [("k1", jwk["n"].as_str().unwrap().as_bytes()), ("k1", jwk.to_string().as_bytes()), ("k2", b"secret")]
    {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        let message = format!(
            "{}.{}",
            base64url(json!({"alg": "HS256", "kid": kid}).to_string()),
            base64url(claims("billing").to_string())
        );
        let token = format!("{message}.{}", base64url(aws_lc_rs::hmac::sign(&key, message.as_bytes())));
        refused(&corp, &token, UnsupportedAlgorithm).await;
    }
}

#[tokio::test]
async fn an_algorithm_that_the_issuer_is_not_configured_for_is_refused() {
    let corp = Corp::configured(|config| config.algorithms = vec!["ES256".to_owned()]).await;
    refused(&corp, &corp.token(&claims("billing")), UnsupportedAlgorithm).await;
}

#[tokio::test]
async fn an_expired_token_is_refused_after_the_leeway() {
    let corp = Corp::start().await;
    let lived = |ago: i64| corp.token(&with(claims("billing"), "exp", json!(NOW - ago)));
    assert!(corp.auth.authenticate(&lived(29)).await.is_ok());
    refused(&corp, &lived(30), Expired).await;
    refused(&corp, &corp.token(&with(claims("billing"), "exp", json!(0))), Expired).await;
}

#[tokio::test]
async fn a_token_that_is_not_valid_yet_is_refused_before_the_leeway() {
    let corp = Corp::start().await;
    let from = |ahead: i64| corp.token(&with(claims("billing"), "nbf", json!(NOW + ahead)));
    assert!(corp.auth.authenticate(&from(30)).await.is_ok());
    let token = from(31);
    refused(&corp, &token, NotYetValid).await;
    corp.clock.advance(SECOND);
    assert!(corp.auth.authenticate(&token).await.is_ok());
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    let corp = Corp::start().await;
    let audience = |aud: Value| corp.token(&with(claims("billing"), "aud", aud));
    assert!(corp.auth.authenticate(&audience(json!(["other", AUDIENCE]))).await.is_ok());
    for other in [json!("other"), json!(["other"]), json!([]), json!("tokenward2"), json!([1])] {
        let message = refused(&corp, &audience(other), WrongAudience).await;
        assert!(message.contains("\"tokenward\""), "{message}");
    }
}

#[tokio::test]
async fn required_claims_must_be_there() {
    let corp = Corp::start().await;
    for claim in ["iss", "aud", "exp", "sub"] {
        let message =
            refused(&corp, &corp.token(&with(claims("billing"), claim, Value::Null)), MissingClaim).await;
        assert!(message.contains(&format!("{claim:?}")), "{message}");
    }
    for (claim, value) in [("iss", json!([ISS])), ("aud", json!(1)), ("sub", json!(7)), ("sub", json!(""))] {
        refused(&corp, &corp.token(&with(claims("billing"), claim, value)), MissingClaim).await;
    }
    for (claim, value) in [("exp", json!("soon")), ("nbf", json!("now")), ("iat", json!([]))] {
        refused(&corp, &corp.token(&with(claims("billing"), claim, value)), Malformed).await;
    }
}

#[tokio::test]
async fn a_claim_that_cannot_be_a_principal_is_refused() {
    let corp = Corp::start().await;
    for sub in ["a b", "a\nb", "ü", "a\0", &"x".repeat(251)] {
        refused(&corp, &corp.token(&claims(sub)), MissingClaim).await;
    }
    let deep = corp.token(&claims("system:serviceaccount:ns:name"));
    assert_eq!(
        corp.auth.authenticate(&deep).await.unwrap().principal.as_str(),
        "corp:system:serviceaccount:ns:name"
    );
}

#[tokio::test]
async fn an_unknown_issuer_is_refused() {
    let corp = Corp::start().await;
    for iss in ["https://evil.example", "https://id.example.com/", "tokenward"] {
        refused(&corp, &corp.token(&with(claims("billing"), "iss", json!(iss))), UnknownIssuer).await;
    }
}

#[tokio::test]
async fn an_issuer_cannot_speak_for_another() {
    let (ours, theirs) = (Signer::ed25519(), Signer::ed25519());
    let corp_server = JwksServer::start(Answer::Keys(jwks(&[ours.jwk("k1")]))).await;
    let other_server = JwksServer::start(Answer::Keys(jwks(&[theirs.jwk("k1"), theirs.jwk("k2")]))).await;
    let other = IssuerConfig::new(
        "other",
        "https://other.example",
        AUDIENCE,
        JwksSource::Url(other_server.url().parse().unwrap()),
    );
    let clock = clock();
    let auth = authenticator(vec![corp(&corp_server.url()), other], &clock);
    let corp = Corp { signer: theirs, server: corp_server, clock, auth };
    // The other issuer's key, with our `iss`: by its own name, and by the name of our key.
    refused(&corp, &corp.signer.token("EdDSA", "k2", &claims("billing")), UnknownKey).await;
    refused(&corp, &corp.signer.token("EdDSA", "k1", &claims("billing")), BadSignature).await;
    // Its own `iss`, and a claim that looks like a principal of somebody else.
    for sub in ["corp:billing", "builtin:admin"] {
        let claims = with(claims(sub), "iss", json!("https://other.example"));
        let message = refused(&corp, &corp.signer.token("EdDSA", "k1", &claims), MissingClaim).await;
        assert!(message.contains("another issuer"), "{message}");
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused() {
    let corp = Corp::start().await;
    refused(&corp, &corp.signer.token("EdDSA", "k9", &claims("billing")), UnknownKey).await;
}

#[tokio::test]
async fn a_signature_of_another_key_or_other_claims_is_refused() {
    let corp = Corp::start().await;
    refused(&corp, &Signer::ed25519().token("EdDSA", "k1", &claims("billing")), BadSignature).await;
    let good = corp.token(&claims("billing"));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let forged = format!("{header}.{}.{signature}", base64url(claims("admin").to_string()));
    refused(&corp, &forged, BadSignature).await;
    refused(&corp, &format!("{signed}."), BadSignature).await;
}

#[tokio::test]
async fn a_key_for_another_algorithm_is_refused() {
    let corp = Corp::start().await;
    let rsa = Signer::rsa();
    let token = rsa.token("RS256", "k1", &claims("billing"));
    refused(&corp, &token, UnsupportedAlgorithm).await;
}

#[tokio::test]
async fn a_life_of_more_than_a_day_is_refused() {
    let corp = Corp::start().await;
    let life = |iat: Value, exp: i64| {
        corp.token(&with(with(claims("billing"), "iat", iat), "exp", json!(NOW + exp)))
    };
    let day = 86400;
    assert!(corp.auth.authenticate(&life(json!(NOW), day)).await.is_ok());
    assert!(corp.auth.authenticate(&life(Value::Null, day)).await.is_ok());
    refused(&corp, &life(json!(NOW), day + 1), LifetimeTooLong).await;
    refused(&corp, &life(json!(NOW - day), 1), LifetimeTooLong).await;
    refused(&corp, &life(Value::Null, day + 31), LifetimeTooLong).await;
    // An `iat` in the future does not help.
    refused(&corp, &life(json!(NOW + day), 2 * day), LifetimeTooLong).await;
    refused(&corp, &life(json!(NOW), i64::MAX - NOW), LifetimeTooLong).await;
}

#[tokio::test]
async fn a_role_must_be_one_that_the_issuer_may_give() {
    let corp = Corp::configured(|config| config.allowed_roles = vec![Role::Service, Role::Auditor]).await;
    let role = |role: Value| corp.token(&with(claims("billing"), "tokenward_role", role));
    assert_eq!(corp.auth.authenticate(&role(json!("auditor"))).await.unwrap().role, Role::Auditor);
    assert_eq!(corp.auth.authenticate(&role(Value::Null)).await.unwrap().role, Role::Service);
    for other in [json!("admin"), json!("Service"), json!("root"), json!(["service"]), json!(1)] {
        refused(&corp, &role(other), RoleNotAllowed).await;
    }
    let admins = Corp::configured(|config| config.allowed_roles = vec![Role::Admin]).await;
    refused(&admins, &admins.token(&claims("billing")), RoleNotAllowed).await;
}

#[tokio::test]
async fn principal_and_role_come_from_the_configured_claims() {
    let corp = Corp::configured(|config| {
        config.principal_claim = "client_id".to_owned();
        config.role_claim = None;
    })
    .await;
    let claims = with(with(claims("x"), "client_id", json!("billing")), "tokenward_role", json!("admin"));
    let caller = corp.auth.authenticate(&corp.token(&claims)).await.unwrap();
    assert_eq!((caller.principal.as_str(), caller.role), ("corp:billing", Role::Service));
}
