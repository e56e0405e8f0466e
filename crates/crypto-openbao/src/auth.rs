use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokenward_crypto::{CryptoError, CryptoErrorKind, RemoteCalls};
use tokenward_plugin::read_secret_bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use crate::http::{Answer, Http};
use crate::session::{Lease, Session};

/// A secret as it was given; a file is read anew whenever the secret is needed.
pub(crate) enum Source {
    Value(SecretString),
    File(PathBuf),
}

/// How to get a token.
pub(crate) enum Credentials {
    Token(Source),
    AppRole { mount: String, role_id: SecretString, secret_id: Source },
    Kubernetes { mount: String, role: String, token_file: PathBuf },
}

/// Keeps a token that the server accepts.
pub(crate) struct Auth {
    http: Arc<Http>,
    calls: Arc<RemoteCalls>,
    credentials: Credentials,
    session: RwLock<Option<Arc<Session>>>,
    logins: AtomicU64,
    /// One login at a time; whoever waited finds its result.
    logging_in: tokio::sync::Mutex<()>,
    /// The session is another, or nobody needs one any more.
    changed: Arc<Notify>,
}

#[derive(Deserialize)]
struct Granted {
    auth: Grant,
}

#[derive(Deserialize)]
struct Grant {
    client_token: SecretString,
    lease_duration: u64,
    renewable: bool,
}

#[derive(Deserialize)]
struct Looked {
    data: Looking,
}

#[derive(Deserialize)]
struct Looking {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Serialize)]
struct Nothing {}

const NO_BODY: Option<&Nothing> = None;

impl Auth {
    pub(crate) fn new(http: Arc<Http>, calls: Arc<RemoteCalls>, credentials: Credentials) -> Self {
        Self {
            http,
            calls,
            credentials,
            session: RwLock::new(None),
            logins: AtomicU64::new(0),
            logging_in: tokio::sync::Mutex::new(()),
            changed: Arc::default(),
        }
    }

    /// The session in use, or a new one where there is none yet.
    pub(crate) async fn session(&self) -> Result<Arc<Session>, CryptoError> {
        match self.current() {
            Some(session) => Ok(session),
            None => self.replace(0).await,
        }
    }

    /// Another session than the one of this number, which the server refused or which is about to end.
    pub(crate) async fn replace(&self, spent: u64) -> Result<Arc<Session>, CryptoError> {
        let _one = self.logging_in.lock().await;
        let current = self.current();
        match &current {
            Some(session) if session.number != spent => return Ok(Arc::clone(session)),
            _ => {}
        }
        let session = Arc::new(self.log_in(current.as_deref()).await?);
        *self.session.write() = Some(Arc::clone(&session));
        self.changed.notify_one();
        Ok(session)
    }

    /// Whether the server still knows this session's token: a refusal then is a matter of its policy.
    pub(crate) async fn is_alive(&self, session: &Session) -> Result<bool, CryptoError> {
        self.look_up(&session.token).await.map(|answer| answer.is_success())
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.session.read().clone()
    }

    async fn log_in(&self, spent: Option<&Session>) -> Result<Session, CryptoError> {
        let since = Instant::now();
        let (token, lease) = match &self.credentials {
            Credentials::Token(source) => self.given(source, spent, since).await?,
            Credentials::AppRole { mount, role_id, secret_id } => {
                #[derive(Serialize)]
                struct Login<'a> {
                    role_id: &'a str,
                    secret_id: &'a str,
                }
                let secret_id = self.read(secret_id)?;
                let body = Login { role_id: role_id.expose_secret(), secret_id: secret_id.expose_secret() };
                let refused = "role_id or secret_id is not known, has expired or was used up. Make another with \
                               `bao write -f auth/approle/role/ROLE/secret-id`";
                self.log_in_at(mount, &body, "AppRole", refused, since).await?
            }
            Credentials::Kubernetes { mount, role, token_file } => {
                #[derive(Serialize)]
                struct Login<'a> {
                    role: &'a str,
                    jwt: &'a str,
                }
                let jwt = self.read_file(token_file)?;
                let body = Login { role, jwt: jwt.expose_secret() };
                let refused = "the role is not known, or it does not admit this service account. Compare \
                               `bao read auth/kubernetes/role/ROLE` with the pod's account, namespace and audience";
                self.log_in_at(mount, &body, "Kubernetes", refused, since).await?
            }
        };
        let number = self.logins.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Session { token, number, lease })
    }

    /// A token that was given instead of credentials.
    async fn given(
        &self,
        source: &Source,
        spent: Option<&Session>,
        since: Instant,
    ) -> Result<(SecretString, Option<Lease>), CryptoError> {
        let token = self.read(source)?;
        if spent.is_some_and(|spent| spent.token.expose_secret() == token.expose_secret()) {
            return Err(self.token_refused(source, "is refused, or its end is near and no renewal moves it"));
        }
        let answer = self.look_up(&token).await?;
        if !answer.is_success() {
            return Err(self.token_refused(source, "is not known, has expired or was revoked"));
        }
        let Looking { ttl, renewable } = self.http.parse::<Looked>(&answer)?.data;
        Ok((token, Lease::new(since, ttl, renewable)))
    }

    fn token_refused(&self, source: &Source, why: &str) -> CryptoError {
        let remedy = match source {
            Source::Value(_) => "give another token and restart".to_owned(),
            Source::File(path) => format!("write another into {}, which is read anew", path.display()),
        };
        self.calls.error(CryptoErrorKind::Internal, format!("the token {why}: {remedy}"))
    }

    async fn look_up(&self, token: &SecretString) -> Result<Answer, CryptoError> {
        self.http.send(Method::GET, "auth/token/lookup-self", Some(token), NO_BODY).await
    }

    async fn log_in_at(
        &self,
        mount: &str,
        body: &impl Serialize,
        method: &str,
        refused: &str,
        since: Instant,
    ) -> Result<(SecretString, Option<Lease>), CryptoError> {
        let path = format!("auth/{mount}/login");
        let answer = self.http.send(Method::POST, &path, None, Some(body)).await?;
        if !answer.is_success() {
            let message = format!("{method} login at {path} was refused: {refused}");
            return Err(self.calls.error(CryptoErrorKind::Internal, message));
        }
        let Grant { client_token, lease_duration, renewable } = self.http.parse::<Granted>(&answer)?.auth;
        Ok((client_token, Lease::new(since, lease_duration, renewable)))
    }

    fn read(&self, source: &Source) -> Result<SecretString, CryptoError> {
        match source {
            Source::Value(secret) => Ok(secret.clone()),
            Source::File(path) => self.read_file(path),
        }
    }

    fn read_file(&self, path: &Path) -> Result<SecretString, CryptoError> {
        let secret = read_secret_bytes(path).and_then(|bytes| {
            let bytes = Zeroizing::new(bytes);
            match std::str::from_utf8(&bytes).map(str::trim_ascii_end) {
                Ok("") => Err(format!("{} is empty", path.display())),
                Ok(text) => Ok(SecretString::from(text)),
                Err(_) => Err(format!("{} is not UTF-8 text", path.display())),
            }
        });
        secret.map_err(|message| self.calls.error(CryptoErrorKind::Internal, message))
    }
}

impl Auth {
    /// Sees to the session in time, until nobody else has this any more.
    pub(crate) fn look_after(self: &Arc<Self>) {
        let (auth, changed) = (Arc::downgrade(self), Arc::clone(&self.changed));
        tokio::spawn(async move {
            let mut failed_at = None;
            loop {
                let Some(due) = auth.upgrade().map(|auth| auth.due(failed_at)) else { return };
                let woken = tokio::select! {
                    () = changed.notified() => true,
                    () = async { match due { Some(due) => sleep_until(due).await, None => std::future::pending().await } } => false,
                };
                if woken {
                    failed_at = None;
                    continue;
                }
                let Some(auth) = auth.upgrade() else { return };
                failed_at = match auth.see_to_it().await {
                    Ok(()) => None,
                    Err(error) => {
                        tracing::warn!(%error, "the token for the encryption backend could not be renewed");
                        Some(Instant::now())
                    }
                };
            }
        });
    }

    fn due(&self, failed_at: Option<Instant>) -> Option<Instant> {
        Some(self.current()?.lease?.due(failed_at))
    }

    /// Renews the token, or gets another where that cannot be done.
    async fn see_to_it(&self) -> Result<(), CryptoError> {
        let Some(session) = self.current() else { return Ok(()) };
        let Some(before) = session.lease else { return Ok(()) };
        if before.renewable {
            let renewed = self.calls.repeatable(|| self.renew(&session)).await?;
            if let Some(lease) = renewed {
                self.extend(&session, lease);
                let ends = lease.is_some_and(|lease| lease.is_exhausted(&before));
                return if ends { self.log_in_anew(&session).await } else { Ok(()) };
            }
        }
        self.log_in_anew(&session).await
    }

    async fn log_in_anew(&self, session: &Session) -> Result<(), CryptoError> {
        self.calls.repeatable(|| self.replace(session.number)).await.map(drop)
    }

    /// Notes a renewal, unless another session has come meanwhile.
    fn extend(&self, renewed: &Session, lease: Option<Lease>) {
        let mut session = self.session.write();
        if session.as_ref().is_some_and(|current| current.number == renewed.number) {
            let token = renewed.token.clone();
            *session = Some(Arc::new(Session { token, number: renewed.number, lease }));
        }
    }

    /// `None`: the server refused.
    async fn renew(&self, session: &Session) -> Result<Option<Option<Lease>>, CryptoError> {
        let since = Instant::now();
        let path = "auth/token/renew-self";
        let answer = self.http.send(Method::POST, path, Some(&session.token), Some(&Nothing {})).await?;
        if !answer.is_success() {
            return Ok(None);
        }
        let Grant { lease_duration, renewable, .. } = self.http.parse::<Granted>(&answer)?.auth;
        Ok(Some(Lease::new(since, lease_duration, renewable)))
    }
}

impl Drop for Auth {
    fn drop(&mut self) {
        // Whoever looks after the session finds that it is gone.
        self.changed.notify_one();
    }
}
