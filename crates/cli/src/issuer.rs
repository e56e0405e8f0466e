//! The keys of the built-in issuer: made at the first start, sealed in the database.

use tokenward_auth::{BuiltinIssuer, BuiltinSettings};
use tokenward_broker::{INSTALLATION_SCOPE, Place, Sealer};
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
    let mut keys = Vec::new();
    for IssuerKey { kid, sealed, public_key, .. } in stored {
        let private_key = sealer.open(place(&kid), &sealed).await.map_err(|error| {
            Failure::from(error).hint(format!(
                "it is the private key {kid:?} of the built-in issuer: restore its row in issuer_keys"
            ))
        })?;
        let public_key: [u8; 32] = public_key.as_slice().try_into().map_err(|_| {
            Failure::new(format!("the stored public key {kid:?} of the built-in issuer is damaged"))
        })?;
        keys.push((kid, private_key, public_key));
    }
    let settings = BuiltinSettings { iss: builtin.iss.clone(), audience: builtin.audience.clone() };
    let issuer = BuiltinIssuer::from_keys(keys, settings);
    Ok(Some(issuer.map_err(|error| Failure::new(error.to_string()))?))
}

async fn create(storage: &dyn Storage, sealer: &Sealer, clock: &dyn Clock) -> Result<(), Failure> {
    let (private_key, public_key, kid) = BuiltinIssuer::generate_key();
    let ciphertext = sealer.seal(place(&kid), &private_key).await?;
    let key = IssuerKey { kid, sealed: ciphertext, public_key: public_key.to_vec(), created_at: clock.now() };
    // `false`: another process was faster, and its key is read next.
    storage.create_first_issuer_key(&key).await?;
    Ok(())
}
