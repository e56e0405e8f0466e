//! Which keys there are, and who needs them.

use serde::Serialize;
use tokenward_api::admin::v1::encryption_key::State;
use tokenward_api::admin::v1::key_service_client::KeyServiceClient;
use tokenward_api::admin::v1::{
    DataKey, EncryptionKey, ListDataKeysRequest, ListEncryptionKeysRequest, SilentBackend,
};

use crate::failure::Failure;
use crate::output::{Output, Row, print, time};
use crate::remote::{Client, PAGE_SIZE, all_pages};

/// A key-encryption key as it is printed.
#[derive(Serialize)]
pub(super) struct KeyView {
    name: String,
    state: &'static str,
    /// Nothing where its backend does not say.
    available: Option<bool>,
    data_key_count: i64,
    create_time: Option<String>,
    activate_time: Option<String>,
    replace_time: Option<String>,
    unused_time: Option<String>,
    retire_time: Option<String>,
    /// Which backups need it.
    backups: String,
}

impl Row for KeyView {
    const COLUMNS: &'static [&'static str] =
        &["name", "state", "available", "data_key_count", "create_time", "backups"];
}

impl From<EncryptionKey> for KeyView {
    fn from(key: EncryptionKey) -> Self {
        let state = match key.state() {
            State::New => "new",
            State::DecryptOnly => "decrypt_only",
            State::Active => "active",
            State::Retired => "retired",
            State::Unspecified => "unknown",
        };
        let (activated, unused) = (time(key.activate_time), time(key.unused_time));
        let backups = match (&activated, &unused) {
            (None, _) => "none".to_owned(),
            (Some(from), None) => format!("since {from}"),
            (Some(from), Some(until)) => format!("{from} to {until}"),
        };
        Self {
            name: key.name,
            state,
            available: (!key.availability_unknown).then_some(key.available),
            data_key_count: key.data_key_count,
            create_time: time(key.create_time),
            activate_time: activated,
            replace_time: time(key.replace_time),
            unused_time: unused,
            retire_time: time(key.retire_time),
            backups,
        }
    }
}

/// A backend that does not say which keys it has, as it is printed.
#[derive(Serialize)]
struct SilentView {
    backend: String,
    problem: String,
}

impl Row for SilentView {
    const COLUMNS: &'static [&'static str] = &["backend", "problem"];
}

impl From<SilentBackend> for SilentView {
    fn from(backend: SilentBackend) -> Self {
        Self { backend: backend.kind, problem: backend.problem }
    }
}

/// A data key as it is printed.
#[derive(Serialize)]
struct DataKeyView {
    scope: String,
    data_key_id: i32,
    state: &'static str,
    encryption_key: String,
    seal_count: i64,
    secret_count: i64,
    create_time: Option<String>,
    replace_time: Option<String>,
    /// Which backups it opens: what its scope had stored at the time.
    backups: String,
}

impl Row for DataKeyView {
    const COLUMNS: &'static [&'static str] = &[
        "scope",
        "data_key_id",
        "state",
        "encryption_key",
        "seal_count",
        "secret_count",
        "create_time",
        "backups",
    ];
}

impl From<DataKey> for DataKeyView {
    fn from(key: DataKey) -> Self {
        let (created, replaced) = (time(key.create_time), time(key.replace_time));
        let from = created.as_deref().unwrap_or("unknown");
        let backups = match &replaced {
            // What still names a key that was replaced keeps its backups coming.
            Some(until) if key.secret_count == 0 => format!("{from} to {until}"),
            _ => format!("since {from}"),
        };
        Self {
            scope: key.scope,
            data_key_id: key.data_key_id,
            state: if key.active { "active" } else { "replaced" },
            encryption_key: key.encryption_key,
            seal_count: key.seal_count,
            secret_count: key.secret_count,
            create_time: created,
            replace_time: replaced,
            backups,
        }
    }
}

/// Everything, for programs.
#[derive(Serialize)]
struct All {
    encryption_keys: Vec<KeyView>,
    silent_backends: Vec<SilentView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_keys: Option<Vec<DataKeyView>>,
}

pub(super) async fn run(
    client: &mut KeyServiceClient<Client>,
    output: Output,
    with_data_keys: bool,
) -> Result<(), Failure> {
    let keys = client.list_encryption_keys(ListEncryptionKeysRequest {}).await?.into_inner();
    let encryption_keys: Vec<_> = keys.encryption_keys.into_iter().map(KeyView::from).collect();
    let silent_backends: Vec<_> = keys.silent_backends.into_iter().map(SilentView::from).collect();
    let data_keys = if with_data_keys {
        let request = ListDataKeysRequest { page_size: PAGE_SIZE, ..Default::default() };
        let keys = all_pages!(client, list_data_keys, request, data_keys, None);
        Some(keys.into_iter().map(DataKeyView::from).collect::<Vec<_>>())
    } else {
        None
    };
    if output == Output::Json {
        return output.one(&All { encryption_keys, silent_backends, data_keys });
    }
    output.list(&encryption_keys)?;
    if !silent_backends.is_empty() {
        print("\n")?;
        output.list(&silent_backends)?;
    }
    if let Some(data_keys) = data_keys {
        print("\n")?;
        output.list(&data_keys)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_key_whose_backend_does_not_answer_is_neither_available_nor_not() {
        for (available, availability_unknown, shown) in
            [(true, false, json!(true)), (false, false, json!(false)), (false, true, Value::Null)]
        {
            let key = EncryptionKey { available, availability_unknown, ..EncryptionKey::default() };
            assert_eq!(serde_json::to_value(KeyView::from(key)).unwrap()["available"], shown);
        }
    }
}
