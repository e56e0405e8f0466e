use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use tokenward_crypto::{CryptoError, CryptoErrorKind, RemoteCalls};
use tokenward_plugin::read_secret_bytes;
use zeroize::Zeroizing;

use crate::errors::explain;

/// Where the PIN is; a file is read at each login.
pub(crate) enum Pin {
    Value(SecretString),
    File(PathBuf),
}

/// A token of an HSM and the sessions with it. Everything here blocks.
pub(crate) struct Hsm {
    module: Pkcs11,
    token: String,
    pin: Pin,
    calls: Arc<RemoteCalls>,
    idle: Mutex<Vec<Session>>,
    /// A PIN that was wrong, so that no second try brings the token nearer to its lock.
    refused: Mutex<Option<SecretString>>,
}

impl Hsm {
    /// Loads the module.
    ///
    /// # Errors
    /// `Internal` when it is no PKCS #11 module.
    pub(crate) fn load(
        module: &PathBuf,
        token: String,
        pin: Pin,
        calls: Arc<RemoteCalls>,
    ) -> Result<Self, CryptoError> {
        let module = Pkcs11::new(module).map_err(|error| {
            let message = format!("{} cannot be loaded as a PKCS #11 module: {error}", module.display());
            calls.error(CryptoErrorKind::Internal, message)
        })?;
        Ok(Self { module, token, pin, calls, idle: Mutex::default(), refused: Mutex::default() })
    }

    /// Runs `job` in a session that is logged in.
    pub(crate) fn with_session<T>(
        &self,
        job: impl FnOnce(&Session) -> Result<T, CryptoError>,
    ) -> Result<T, CryptoError> {
        // Taken out in a statement of its own, so that the lock is not held meanwhile.
        let idle = self.idle.lock().pop();
        let session = match idle {
            Some(session) => session,
            None => self.open(false)?,
        };
        let outcome = job(&session);
        match &outcome {
            // What broke one session has often broken all.
            Err(error) if error.is_retryable() => self.idle.lock().clear(),
            _ => self.idle.lock().push(session),
        }
        outcome
    }

    /// Runs `job` in a session that may make objects.
    pub(crate) fn with_writing_session<T>(
        &self,
        job: impl FnOnce(&Session) -> Result<T, CryptoError>,
    ) -> Result<T, CryptoError> {
        job(&self.open(true)?)
    }

    fn open(&self, write: bool) -> Result<Session, CryptoError> {
        // Another backend of this process may have done so; one that ended it is made good for.
        let flags = CInitializeFlags::OS_LOCKING_OK;
        match self.module.initialize(CInitializeArgs::new(flags)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(self.error(&error)),
        }
        let slots = self.module.get_slots_with_token().map_err(|error| self.error(&error))?;
        let mut labels = Vec::new();
        let mut found = Vec::new();
        for slot in slots {
            // A token that was taken out meanwhile is none, nor is one that is being made.
            let Ok(info) = self.module.get_token_info(slot) else { continue };
            if !info.token_initialized() {
                continue;
            }
            labels.push(info.label().to_owned());
            if info.label() == self.token {
                found.push(slot);
            }
        }
        let slot = match found.as_slice() {
            [slot] => *slot,
            [] => return Err(self.no_token(&labels)),
            _ => {
                let message =
                    format!("several tokens have the label {:?}: give each one of its own", self.token);
                return Err(self.calls.error(CryptoErrorKind::Internal, message));
            }
        };
        let session =
            if write { self.module.open_rw_session(slot) } else { self.module.open_ro_session(slot) };
        let session = session.map_err(|error| self.error(&error))?;
        self.log_in(&session)?;
        Ok(session)
    }

    fn no_token(&self, labels: &[String]) -> CryptoError {
        let there_are = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        let message = format!(
            "no token has the label {:?}; there are: {there_are}. Check token_label, that the HSM is connected, and \
             that its module finds its own configuration",
            self.token
        );
        self.calls.error(CryptoErrorKind::Unavailable, message)
    }

    fn log_in(&self, session: &Session) -> Result<(), CryptoError> {
        let pin = self.pin()?;
        let is_refused =
            self.refused.lock().as_ref().is_some_and(|old| old.expose_secret() == pin.expose_secret());
        if is_refused {
            let message = "the PIN was wrong before, and is not tried again, because some tries lock the token: give \
                           another in pin_file, or restart with it";
            return Err(self.calls.error(CryptoErrorKind::Internal, message));
        }
        match session.login(UserType::User, Some(&pin)) {
            // All sessions of a process share one login.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
            Err(error) => {
                if let Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) =
                    error
                {
                    *self.refused.lock() = Some(pin);
                }
                Err(self.error(&error))
            }
        }
    }

    fn pin(&self) -> Result<SecretString, CryptoError> {
        let path = match &self.pin {
            Pin::Value(pin) => return Ok(pin.clone()),
            Pin::File(path) => path,
        };
        let internal = |message: String| self.calls.error(CryptoErrorKind::Internal, message);
        let bytes = Zeroizing::new(read_secret_bytes(path).map_err(internal)?);
        match std::str::from_utf8(&bytes).map(str::trim_ascii_end) {
            Ok(text) if !text.is_empty() => Ok(SecretString::from(text)),
            _ => Err(internal(format!("{} holds no PIN", path.display()))),
        }
    }

    /// A failure of the module as an error of this backend.
    pub(crate) fn error(&self, error: &Error) -> CryptoError {
        let (kind, message) = explain(error);
        self.calls.error(kind, message)
    }

    /// An error of this backend.
    pub(crate) fn say(&self, kind: CryptoErrorKind, message: impl fmt::Display) -> CryptoError {
        self.calls.error(kind, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenward_crypto::CallPolicy;
    use tokenward_types::SystemRng;

    /// A token of one's own with the PIN `hunter2pin`.
    fn token(test: &str) -> Option<(PathBuf, String)> {
        let module = tokenward_testkit::parts::pkcs11_module(test)?;
        let label = format!("pin-{}", std::process::id());
        // SoftHSM fails over a token that another process is just making.
        let configuration = std::env::var_os("SOFTHSM2_CONF").expect("SOFTHSM2_CONF is set with the module");
        let lock = std::fs::File::open(configuration).expect("the configuration is there");
        lock.lock().expect("a lock");
        let mut command = std::process::Command::new("softhsm2-util");
        command.args([
            "--init-token",
            "--free",
            "--so-pin",
            "so-pin",
            "--pin",
            "hunter2pin",
            "--label",
            &label,
        ]);
        assert!(command.output().expect("the program runs").status.success());
        Some((module.into(), label))
    }

    #[test]
    fn a_wrong_pin_is_tried_once_and_the_right_one_in_its_file_heals() {
        let test = "a_wrong_pin_is_tried_once_and_the_right_one_in_its_file_heals";
        let Some((module, label)) = token(test) else { return };
        let file = tempfile::NamedTempFile::new().expect("a scratch file");
        std::fs::write(file.path(), "hunter2wrong").expect("the file takes it");
        let calls = RemoteCalls::new("pkcs11: test", CallPolicy::default(), Arc::new(SystemRng));
        let pin = Pin::File(file.path().to_owned());
        let hsm = Hsm::load(&module, label, pin, Arc::new(calls)).expect("the module loads");
        for says in ["the PIN is wrong", "the PIN was wrong before, and is not tried again"] {
            let error = hsm.with_session(|_| Ok(())).expect_err("the PIN is wrong");
            assert_eq!(error.kind(), CryptoErrorKind::Internal);
            assert!(error.to_string().contains(says) && !error.to_string().contains("hunter2"), "{error}");
        }
        std::fs::write(file.path(), "hunter2pin\n").expect("the file takes it");
        hsm.with_session(|_| Ok(())).expect("the right PIN opens it");
    }
}
