//! OAuth clients with their opened secrets, kept in memory until an admin changes them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use secrecy::SecretString;
use tokenward_provider::{ClientCredentials, Provider};
use tokenward_storage::{ClientSecretRecord, ClientSecretState, OAuthClient};
use tokenward_types::OAuthClientId;

use crate::broker::Broker;
use crate::gate::Gate;
use crate::guard::Sender;
use crate::sealer::{INSTALLATION_SCOPE, Place};
use crate::{Error, Reason};

/// A client, ready to be used.
pub(crate) struct ClientEntry {
    pub client: OAuthClient,
    pub provider: Arc<dyn Provider>,
    /// Usable secrets: the active one first, then the others, newest first.
    secrets: Vec<(i32, SecretString)>,
    /// The versions of the usable secrets in the same order, those that cannot be read included.
    stored_secrets: Vec<i32>,
    pub gate: Arc<Gate>,
}

impl ClientEntry {
    /// The credentials to try, in order, each with its secret's version.
    pub(crate) fn credentials(&self) -> impl Iterator<Item = (i32, ClientCredentials)> + '_ {
        self.secrets.iter().map(|(version, secret)| {
            let client_id = self.client.client_id.clone();
            (*version, ClientCredentials { client_id, client_secret: secret.clone() })
        })
    }

    /// The credentials to try first.
    ///
    /// # Errors
    /// `OAuthClientMisconfigured` when the client has no usable secret.
    pub(crate) fn first_credentials(&self) -> Result<ClientCredentials, Error> {
        self.credentials().next().map(|(_, credentials)| credentials).ok_or_else(|| {
            misconfigured(
                &self.client.id,
                "it has no client secret: add one with `tokenward oauth-client secret add`",
            )
        })
    }
}

/// The provider does not accept the client.
pub(crate) fn misconfigured(client: &OAuthClientId, why: &str) -> Error {
    Error::new(Reason::OAuthClientMisconfigured, format!("OAuth client {client}: {why}"))
        .with("oauth_client_id", client.as_str())
}

/// The clients in memory. There are few, so none is dropped.
pub(crate) struct Clients {
    entries: Mutex<HashMap<OAuthClientId, Arc<ClientEntry>>>,
    /// What calls pass; outlives a client's entry.
    gates: Mutex<HashMap<OAuthClientId, Arc<Gate>>>,
    /// Where gates tell of pauses.
    news: Sender,
    /// Counts what was forgotten, so that a reading that began before does not come back after.
    forgotten: Mutex<u64>,
}

impl Clients {
    /// None in memory yet.
    pub(crate) fn new(news: Sender) -> Self {
        Self { entries: Mutex::default(), gates: Mutex::default(), news, forgotten: Mutex::default() }
    }

    /// The gate of a client that was used before.
    pub(crate) fn gate(&self, client: &OAuthClientId) -> Option<Arc<Gate>> {
        self.gates.lock().get(client).cloned()
    }

    /// Sends everybody away who waits for a turn.
    pub(crate) fn close(&self) {
        self.gates().iter().for_each(|gate| gate.close());
    }

    /// Every gate.
    pub(crate) fn gates(&self) -> Vec<Arc<Gate>> {
        self.gates.lock().values().cloned().collect()
    }
}

impl Broker {
    /// Drops a client from memory: the next use reads it and its secrets again, with its breaker closed on every server,
    /// and its connections are tried again at once. A throttle goes on.
    pub fn forget_oauth_client(&self, client: &OAuthClientId) {
        let mut forgotten = self.clients().forgotten.lock();
        *forgotten += 1;
        self.clients().entries.lock().remove(client);
        if let Some(gate) = self.clients().gate(client) {
            gate.guard.mended();
        }
        self.directory().forget_failures(client);
    }

    /// Drops every client from memory.
    pub(crate) fn forget_oauth_clients(&self) {
        let known: Vec<OAuthClientId> = self.clients().entries.lock().keys().cloned().collect();
        for client in known {
            self.forget_oauth_client(&client);
        }
        // Also those that are being read.
        *self.clients().forgotten.lock() += 1;
    }

    /// Drops clients from memory that differ from what is stored.
    pub(crate) async fn compare_oauth_clients(&self) -> Result<(), Error> {
        let known: Vec<Arc<ClientEntry>> = self.clients().entries.lock().values().cloned().collect();
        for entry in known {
            let id = &entry.client.id;
            let stored = self.storage().get_oauth_client(id).await?;
            let records = self.storage().list_client_secrets(id).await?;
            let secrets = usable(&records).map(|record| record.secret_version);
            let is_same = stored.is_some_and(|stored| stored.version == entry.client.version)
                && secrets.eq(entry.stored_secrets.iter().copied());
            if !is_same {
                self.forget_oauth_client(id);
            }
        }
        Ok(())
    }

    /// Where the provider sends browsers back to for this client.
    pub fn redirect_uri(&self, client: &OAuthClientId) -> String {
        let base = self.settings().public_url.as_str().trim_end_matches('/');
        format!("{base}/oauth/{client}/callback")
    }

    /// The client with its secrets.
    pub(crate) async fn client(&self, id: &OAuthClientId) -> Result<Arc<ClientEntry>, Error> {
        let clients = self.clients();
        if let Some(entry) = clients.entries.lock().get(id) {
            return Ok(Arc::clone(entry));
        }
        let reading = *clients.forgotten.lock();
        let entry = Arc::new(self.read_client(id).await?);
        let forgotten = clients.forgotten.lock();
        if *forgotten == reading {
            let mut entries = clients.entries.lock();
            return Ok(Arc::clone(entries.entry(id.clone()).or_insert(entry)));
        }
        Ok(entry)
    }

    async fn read_client(&self, id: &OAuthClientId) -> Result<ClientEntry, Error> {
        let client =
            self.storage().get_oauth_client(id).await?.ok_or_else(|| Error::not_found("OAuth client", id))?;
        let provider = self.provider(&client.provider).cloned().ok_or_else(|| {
            misconfigured(id, "its provider is not in the server's configuration")
                .with("provider", client.provider.as_str())
        })?;
        let (mut secrets, mut damaged) = (Vec::new(), None);
        let records = self.storage().list_client_secrets(id).await?;
        for record in usable(&records) {
            let name = secret_record(id, record.secret_version);
            match self.sealer().open_text(client_secret_place(&name), &record.sealed).await {
                Ok(secret) => secrets.push((record.secret_version, secret)),
                Err(error) if error.reason == Reason::StoredDataDamaged => {
                    self.metrics().alert("stored_data_damaged", &name);
                    let message = format!(
                        "OAuth client {id}, secret version {}: {}; restore its row or the key, or add the secret again",
                        record.secret_version, error.message
                    );
                    damaged.get_or_insert(error.saying(message).with("oauth_client_id", id.as_str()));
                }
                Err(error) => return Err(error),
            }
        }
        // Another version may do.
        if let (Some(error), true) = (damaged, secrets.is_empty()) {
            return Err(error);
        }
        let stored_secrets = usable(&records).map(|record| record.secret_version).collect();
        let gate = self.gate_of(&client, &*provider).await?;
        Ok(ClientEntry { client, provider, secrets, stored_secrets, gate })
    }

    async fn gate_of(&self, client: &OAuthClient, provider: &dyn Provider) -> Result<Arc<Gate>, Error> {
        if let Some(gate) = self.clients().gate(&client.id) {
            return Ok(gate);
        }
        let news = self.clients().news.clone();
        let gate = Arc::new(Gate::new(client.id.clone(), provider.info().call_rate, Some(news)));
        self.learn_pause(&gate).await?;
        Ok(Arc::clone(self.clients().gates.lock().entry(client.id.clone()).or_insert(gate)))
    }
}

/// The secrets that may be tried: the active one first, then the others, newest first.
fn usable(records: &[ClientSecretRecord]) -> impl Iterator<Item = &ClientSecretRecord> {
    let of = |state| records.iter().filter(move |record| record.state == state);
    of(ClientSecretState::Active).chain(of(ClientSecretState::Enabled))
}

/// The record name that a client secret is bound to.
pub(crate) fn secret_record(client: &OAuthClientId, secret_version: i32) -> String {
    format!("{client}:{secret_version}")
}

/// Where a client secret is sealed.
pub(crate) fn client_secret_place(record: &str) -> Place<'_> {
    Place { scope: INSTALLATION_SCOPE, kind: "client_secret", record, field: "secret", fence: None }
}
