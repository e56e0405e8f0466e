//! The built-in issuer: its tokens are accepted, its limits hold, and its keys rotate.

use std::sync::Arc;
use std::time::Duration;

use tokenward_auth::AuthErrorReason::*;
use tokenward_auth::{
    AuthSettings, Authenticator, BuiltinIssuer, BuiltinKeyError, BuiltinSettings, DEFAULT_LIFETIME,
    IssueError, MAX_LIFETIME, Role,
};
use tokenward_types::{ExposeSecret, ManualClock, SeededRng, Timestamp};

use crate::support::*;

type StoredKey = (String, zeroize::Zeroizing<Vec<u8>>, [u8; 32]);

fn key() -> StoredKey {
    let (pkcs8, public, kid) = BuiltinIssuer::generate_key();
    (kid, pkcs8, public)
}

fn issuer(keys: &[&StoredKey]) -> BuiltinIssuer {
    let keys = keys.iter().copied().cloned().collect();
    BuiltinIssuer::from_keys(keys, BuiltinSettings::default()).unwrap()
}

fn accepting(issuer: &BuiltinIssuer, clock: &ManualClock) -> Authenticator {
    let keys = Some(issuer.verification_keys());
    Authenticator::new(vec![], keys, Arc::new(clock.clone()), AuthSettings::default()).unwrap()
}

fn issue(issuer: &BuiltinIssuer, subject: &str, role: Role, ttl: Duration) -> Result<String, IssueError> {
    let made = issuer.issue(subject, role, ttl, &SeededRng::new(1), &clock())?;
    Ok(made.token.expose_secret().to_owned())
}

#[tokio::test]
async fn its_tokens_are_accepted_with_their_role_until_they_expire() {
    let clock = clock();
    let issuer = issuer(&[&key()]);
    let auth = accepting(&issuer, &clock);
    for role in Role::ALL {
        let made = issuer.issue("billing@eu", role, DEFAULT_LIFETIME, &SeededRng::new(1), &clock).unwrap();
        let caller = auth.authenticate(made.token.expose_secret()).await.unwrap();
        assert_eq!(caller.principal.as_str(), "builtin:billing@eu");
        assert_eq!((&caller.principal, caller.role), (&made.principal, role));
        assert_eq!((caller.expires_at, &*caller.issuer), (made.expires_at, "builtin"));
        assert_eq!(made.expires_at, Timestamp::from_secs(NOW + 3600));
        assert_eq!(made.token_id.len(), 32);
    }
    let token = issue(&issuer, "billing", Role::Service, DEFAULT_LIFETIME).unwrap();
    clock.advance(DEFAULT_LIFETIME + 30 * SECOND);
    assert_eq!(auth.authenticate(&token).await.unwrap_err().reason(), Expired);
}

#[tokio::test]
async fn the_newest_key_signs_and_all_verify() {
    let (old, new, gone) = (key(), key(), key());
    let auth = accepting(&issuer(&[&new, &old]), &clock());
    let by = |key| issue(&issuer(&[key]), "billing", Role::Service, DEFAULT_LIFETIME).unwrap();
    assert!(auth.authenticate(&by(&old)).await.is_ok());
    assert!(auth.authenticate(&by(&new)).await.is_ok());
    assert_eq!(auth.authenticate(&by(&gone)).await.unwrap_err().reason(), UnknownKey);
    let both = issue(&issuer(&[&new, &old]), "billing", Role::Service, DEFAULT_LIFETIME).unwrap();
    assert!(accepting(&issuer(&[&new]), &clock()).authenticate(&both).await.is_ok());
    assert!(accepting(&issuer(&[&old]), &clock()).authenticate(&both).await.is_err());
}

#[tokio::test]
async fn another_installation_is_another_issuer() {
    let key = key();
    let settings = BuiltinSettings { iss: "tokenward-eu".to_owned(), audience: "tokenward-eu".to_owned() };
    let other = BuiltinIssuer::from_keys(vec![key.clone()], settings).unwrap();
    let token = issue(&other, "billing", Role::Service, DEFAULT_LIFETIME).unwrap();
    assert_eq!(
        accepting(&issuer(&[&key]), &clock()).authenticate(&token).await.unwrap_err().reason(),
        UnknownIssuer
    );
    assert!(accepting(&other, &clock()).authenticate(&token).await.is_ok());
}

#[tokio::test]
async fn a_configured_issuer_cannot_take_its_place() {
    let issuer = issuer(&[&key()]);
    let mut config = corp("http://127.0.0.1:1/jwks");
    config.iss = "tokenward".to_owned();
    let setup = Authenticator::new(
        vec![config],
        Some(issuer.verification_keys()),
        Arc::new(clock()),
        AuthSettings::default(),
    );
    assert!(setup.unwrap_err().to_string().contains("same iss"));
}

#[test]
fn subjects_and_lifetimes_have_bounds() {
    let issuer = issuer(&[&key()]);
    let issue = |subject: &str, ttl| issue(&issuer, subject, Role::Service, ttl);
    assert_eq!(issue("", DEFAULT_LIFETIME), Err(IssueError::EmptyOrColon));
    assert_eq!(issue("corp:x", DEFAULT_LIFETIME), Err(IssueError::EmptyOrColon));
    for subject in ["a b", "ü", &"x".repeat(248)] {
        assert!(matches!(issue(subject, DEFAULT_LIFETIME), Err(IssueError::InvalidSubject(_))), "{subject}");
    }
    for ttl in
        [Duration::ZERO, Duration::from_millis(999), MAX_LIFETIME + Duration::from_nanos(1), Duration::MAX]
    {
        assert_eq!(issue("billing", ttl), Err(IssueError::InvalidLifetime), "{ttl:?}");
    }
    assert!(issue("billing", MAX_LIFETIME).is_ok());
}

#[test]
fn stored_keys_that_cannot_be_used_are_named() {
    let from = |keys| BuiltinIssuer::from_keys(keys, BuiltinSettings::default()).unwrap_err();
    let (good, other) = (key(), key());
    let kid = good.0.clone();
    assert_eq!(from(vec![]), BuiltinKeyError::NoKey);
    assert_eq!(from(vec![good.clone(), good.clone()]), BuiltinKeyError::Duplicate(kid.clone()));
    let mixed = (kid.clone(), good.1.clone(), other.2);
    assert_eq!(from(vec![mixed]), BuiltinKeyError::Mismatch(kid.clone()));
    let cut = (kid.clone(), zeroize::Zeroizing::new(good.1[..20].to_vec()), good.2);
    assert_eq!(from(vec![cut]), BuiltinKeyError::NotEd25519(kid));
}

#[test]
fn generated_keys_differ_and_debug_shows_none() {
    let (one, two) = (key(), key());
    assert_ne!(one.0, two.0);
    assert_eq!(one.0.len(), 43, "a SHA-256 thumbprint in base64url");
    let issuer = issuer(&[&one]);
    let made =
        issuer.issue("billing", Role::Service, DEFAULT_LIFETIME, &SeededRng::new(1), &clock()).unwrap();
    let shown = format!("{issuer:?} {made:?} {:?}", accepting(&issuer, &clock()));
    let signature = made.token.expose_secret().rsplit('.').next().unwrap().to_owned();
    assert!(!shown.contains(&signature));
    // The private half are the last 32 bytes of the PKCS #8 form.
    assert!(!shown.contains(&format!("{:?}", &one.1[16..48])[1..]));
}
