//! How a command fails: what people read, and the exit code that scripts read.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The exit codes, as the help shows them. Wrong usage is 2, by clap.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed, for example by a configuration that is not valid
  2  wrong usage
  3  the server refused the request: correct it
  4  not authenticated, or not allowed
  5  not found
  6  unavailable: try again later";

/// What went wrong, for people; never a secret.
#[derive(Debug)]
pub(crate) struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    message: String,
    reason: Option<String>,
    details: Vec<(String, String)>,
    hint: Option<String>,
    request_id: Option<String>,
    exit_code: u8,
}

impl Failure {
    /// A failure of this process (exit code 1).
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            message: message.into(),
            reason: None,
            details: Vec::new(),
            hint: None,
            request_id: None,
            exit_code: 1,
        }))
    }

    /// Adds how to mend it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        self.0.exit_code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", printable(&self.0.message))?;
        let mut line = |label: &str, text: &str| writeln!(f, "  {}: {}", printable(label), printable(text));
        self.0.reason.iter().try_for_each(|text| line("reason", text))?;
        self.0.details.iter().try_for_each(|(label, text)| line(label, text))?;
        self.0.hint.iter().try_for_each(|text| line("hint", text))?;
        self.0.request_id.iter().try_for_each(|text| line("request id", text))
    }
}

/// Keeps what came over the network from steering the terminal; line breaks stay.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(format!("{error:#}"))
    }
}

impl From<tokenward_plugin::Problems> for Failure {
    fn from(problems: tokenward_plugin::Problems) -> Self {
        let list: Vec<_> = problems.iter().map(|problem| format!("  - {problem}")).collect();
        Self::new(format!("the configuration is not valid:\n{}", list.join("\n")))
    }
}

impl From<tokenward_plugin::BuildError> for Failure {
    fn from(error: tokenward_plugin::BuildError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<tokenward_journal::JournalError> for Failure {
    fn from(error: tokenward_journal::JournalError) -> Self {
        Self::new(error.to_string())
            .hint("set broker.journal_dir to a folder that this server alone writes to")
    }
}

impl From<tokenward_storage::StorageError> for Failure {
    fn from(error: tokenward_storage::StorageError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<tokenward_broker::Error> for Failure {
    fn from(error: tokenward_broker::Error) -> Self {
        // Who starts a server looks after its encryption backend too.
        let error = error.for_operator();
        let mut failure = Self::new(error.message);
        failure.0.reason = Some(error.reason.as_str().to_owned());
        failure
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let hint = match status.code() {
            Code::Unauthenticated => {
                Some("give a caller token by --token-file or TOKENWARD_TOKEN_FILE".to_owned())
            }
            Code::Unavailable if status.metadata().is_empty() => {
                Some("check that the server runs, and the address (--addr or TOKENWARD_ADDR)".to_owned())
            }
            _ => None,
        };
        let wait = details.retry_info().and_then(|info| info.retry_delay);
        let wait = wait.map(|delay| format!("try again in {}", humantime::format_duration(delay)));
        let info = details.error_info();
        let mut metadata: Vec<_> =
            info.map(|info| info.metadata.clone().into_iter().collect()).unwrap_or_default();
        metadata.sort();
        let from_info =
            metadata.iter().position(|(key, _)| key == "request_id").map(|at| metadata.remove(at).1);
        let from_header =
            status.metadata().get("x-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        Self(Box::new(Parts {
            message: if status.message().is_empty() {
                status.code().to_string()
            } else {
                status.message().to_owned()
            },
            reason: info.map(|info| info.reason.clone()),
            details: metadata,
            hint: wait.or(hint),
            request_id: from_info.or(from_header),
            exit_code: exit_code(status.code()),
        }))
    }
}

fn exit_code(code: Code) -> u8 {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => 4,
        Code::NotFound => 5,
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted => 6,
        Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists | Code::OutOfRange => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_refusal_shows_reason_and_request_id_on_lines_of_their_own() {
        let mut details = ErrorDetails::new();
        let metadata = [("request_id", "req-1"), ("tenant_id", "acme")];
        details.set_error_info("NOT_FOUND", "tokenward", metadata.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let status = Status::with_error_details(Code::NotFound, "there is no tenant \"acme\"", details);
        let failure = Failure::from(status);
        assert_eq!(failure.exit_code(), 5);
        assert_eq!(
            failure.to_string(),
            "error: there is no tenant \"acme\"\n  reason: NOT_FOUND\n  tenant_id: acme\n  request id: req-1\n"
        );
    }

    #[test]
    fn a_start_that_a_backend_keeps_from_succeeding_says_what_the_backend_says() {
        use tokenward_crypto::{CryptoError, CryptoErrorKind};
        let said = "openbao: key transit/tokenward at https://bao:8200: it is sealed: unseal it";
        let error = CryptoError::new(CryptoErrorKind::Unavailable, said);
        let failure = Failure::from(tokenward_broker::Error::from(error));
        assert_eq!(failure.to_string(), format!("error: {said}\n  reason: ENCRYPTION_UNAVAILABLE\n"));
    }

    #[test]
    fn what_the_server_says_cannot_steer_the_terminal() {
        let failure = Failure::from(Status::invalid_argument("\u{1b}[2Jgone"));
        assert!(!failure.to_string().contains('\u{1b}'));
    }

    #[test]
    fn an_absent_server_is_told_from_a_refusal() {
        let failure = Failure::from(Status::unavailable("tcp connect error"));
        assert_eq!(failure.exit_code(), 6);
        assert!(failure.to_string().contains("TOKENWARD_ADDR"));
    }
}
