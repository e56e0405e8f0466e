//! The token by which this service shows who it is.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};

use crate::time::Time;

/// How often a token file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The longest token that is sent.
const MAX_LENGTH: u64 = 16 * 1024;

/// Where the caller token comes from.
pub(crate) enum CallerTokenSource {
    Fixed(SecretString),
    File(PathBuf),
}

/// A caller token as it goes onto the wire.
pub(crate) type Bearer = MetadataValue<Ascii>;

/// The caller token that is in use.
pub(crate) struct CallerToken {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    bearer: Bearer,
    /// Modification time and length of the file when it was read.
    stamp: Option<(SystemTime, u64)>,
    looked_at: Instant,
}

impl CallerToken {
    /// Reads the token for the first time; a message says what is wrong with it.
    pub(crate) async fn new(source: CallerTokenSource, time: &dyn Time) -> Result<Self, String> {
        let (file, bearer, stamp) = match source {
            CallerTokenSource::Fixed(secret) => (None, bearer(secret.expose_secret())?, None),
            CallerTokenSource::File(path) => {
                let (bearer, stamp) = read(&path).await?;
                (Some(path), bearer, stamp)
            }
        };
        Ok(Self { file, state: Mutex::new(State { bearer, stamp, looked_at: time.now() }) })
    }

    /// The token, read again if the file has changed since it was last looked at.
    pub(crate) async fn get(&self, time: &dyn Time) -> Bearer {
        let known_stamp = {
            let mut state = self.state.lock();
            let due = self.file.is_some() && time.now().duration_since(state.looked_at) >= LOOK_EVERY;
            if !due {
                return state.bearer.clone();
            }
            // Others go on with the known token while this call looks.
            state.looked_at = time.now();
            state.stamp
        };
        if let Some(path) = &self.file {
            let changed = tokio::fs::metadata(path).await.map_or(true, |found| stamp(&found) != known_stamp);
            if changed {
                self.reread().await;
            }
        }
        self.state.lock().bearer.clone()
    }

    /// Reads the file whatever its time says, and returns the token that is there now. A file that cannot be read
    /// leaves the known token in use.
    pub(crate) async fn reread(&self) -> Bearer {
        if let Some(path) = &self.file {
            match read(path).await {
                Ok((bearer, stamp)) => {
                    let mut state = self.state.lock();
                    state.bearer = bearer;
                    state.stamp = stamp;
                }
                Err(problem) => {
                    tracing::warn!(file = %path.display(), problem, "caller token file not usable: keeping the known token");
                }
            }
        }
        self.state.lock().bearer.clone()
    }
}

fn stamp(metadata: &std::fs::Metadata) -> Option<(SystemTime, u64)> {
    Some((metadata.modified().ok()?, metadata.len()))
}

async fn read(path: &std::path::Path) -> Result<(Bearer, Option<(SystemTime, u64)>), String> {
    // The stamp is taken first: a file that changes in between is then read once more, not once too few.
    let metadata = tokio::fs::metadata(path).await.map_err(|error| error.to_string())?;
    if metadata.len() > MAX_LENGTH {
        return Err(format!("longer than {MAX_LENGTH} bytes"));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())?;
    let text = SecretString::from(text);
    Ok((bearer(text.expose_secret())?, stamp(&metadata)))
}

fn bearer(token: &str) -> Result<Bearer, String> {
    let token = token.trim();
    let usable = !token.is_empty()
        && token.len() as u64 <= MAX_LENGTH
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !usable {
        return Err("must be one token of printable ASCII characters".to_owned());
    }
    let mut header =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "not a token".to_owned())?;
    header.set_sensitive(true);
    let mut value = Bearer::try_from(header.as_bytes()).map_err(|_| "not a token".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerToken").field("file", &self.file).finish_non_exhaustive()
    }
}
