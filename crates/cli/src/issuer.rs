//! The keys of the built-in issuer: made at the first start, sealed in the database.

use tokenward_auth::{BuiltinIssuer, BuiltinSettings};
use tokenward_broker::{INSTALLATION_SCOPE, Place, Reason, Sealer};
use tokenward_config::BuiltinIssuer as BuiltinConfig;
use tokenward_storage::{IssuerKey, Storage};
use tokenward_types::Clock;

use crate::failure::Failure;

fn place(kid: &str) -> Place<'_> {
    Place { scope: INSTALLATION_SCOPE, kind: "issuer_key", record: kid, field: "private_key", fence: None }
}

/// The built-in issuer with its stored keys; `None` where it is switched off.
pub(crate) async fn load(
    builtin: &BuiltinConfig,
    storage: &dyn Storage,
    sealer: &Sealer,
    clock: &dyn Clock,
) -> Result<Option<BuiltinIssuer>, Failure> {
    if !builtin.enabled {
        return Ok(None);
    }
    let mut stored = storage.list_issuer_keys().await?;
    if stored.is_empty() {
        create(storage, sealer, clock).await?;
        stored = storage.list_issuer_keys().await?;
    }
    let mut keys = open(sealer, stored).await?;
    if keys.is_empty() {
        // Without one nobody gets a caller token. What was signed by the others is refused until their rows are restored.
        create_another(storage, sealer, clock).await?;
        keys = open(sealer, storage.list_issuer_keys().await?).await?;
    }
    let settings = BuiltinSettings { iss: builtin.iss.clone(), audience: builtin.audience.clone() };
    let issuer = BuiltinIssuer::from_keys(keys, settings);
    Ok(Some(issuer.map_err(|error| Failure::new(error.to_string()))?))
}

/// Opens the keys that open. One that does not is reported, and comes back when its row or its data key does.
async fn open(
    sealer: &Sealer,
    stored: Vec<IssuerKey>,
) -> Result<Vec<(String, zeroize::Zeroizing<Vec<u8>>, [u8; 32])>, Failure> {
    let mut keys = Vec::new();
    for IssuerKey { kid, sealed, public_key, .. } in stored {
        let private_key = match sealer.open(place(&kid), &sealed).await {
            Ok(private_key) => private_key,
            Err(error) if error.reason == Reason::StoredDataDamaged => {
                tracing::error!(
                    kid,
                    %error,
                    detail = error.log_detail(),
                    "a private key of the built-in issuer does not decrypt, and is left out: restore its row in issuer_keys"
                );
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Ok(public_key) = <[u8; 32]>::try_from(public_key.as_slice()) else {
            tracing::error!(
                kid,
                "a public key of the built-in issuer is damaged, and is left out: restore its row in issuer_keys"
            );
            continue;
        };
        keys.push((kid, private_key, public_key));
    }
    Ok(keys)
}

async fn generate(sealer: &Sealer, clock: &dyn Clock) -> Result<IssuerKey, Failure> {
    let (private_key, public_key, kid) = BuiltinIssuer::generate_key();
    Ok(IssuerKey {
        sealed: sealer.seal(place(&kid), &private_key).await?,
        kid,
        public_key: public_key.to_vec(),
        created_at: clock.now(),
    })
}

async fn create_another(storage: &dyn Storage, sealer: &Sealer, clock: &dyn Clock) -> Result<(), Failure> {
    let key = generate(sealer, clock).await?;
    tracing::error!(
        kid = key.kid,
        "made another key for the built-in issuer, because none of the stored ones opens"
    );
    Ok(storage.add_issuer_key(&key).await?)
}

async fn create(storage: &dyn Storage, sealer: &Sealer, clock: &dyn Clock) -> Result<(), Failure> {
    let key = generate(sealer, clock).await?;
    // `false`: another process was faster, and its key is read next.
    storage.create_first_issuer_key(&key).await?;
    Ok(())
}
