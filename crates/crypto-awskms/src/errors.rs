use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use tokenward_crypto::CryptoErrorKind;

/// What a failed call means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The key is not to be had: absent, disabled, or about to be deleted.
    NoKey(&'static str),
    /// The ciphertext is not one of this key under this context.
    Refused,
    /// The caller may not do it.
    Denied,
    /// Anything else, with the remedy.
    Other(CryptoErrorKind, String),
}

/// What a failure means and the remedy, in our own words: the library's repeat what was sent.
pub(crate) fn explain<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Failure {
    use CryptoErrorKind::{Internal, Unavailable};
    let other = |kind, message: &str| Failure::Other(kind, message.to_owned());
    match error {
        SdkError::TimeoutError(_) => {
            other(Unavailable, "cannot connect in time: check region, endpoint_url and the network")
        }
        SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => {
            other(Unavailable, "cannot connect: check region, endpoint_url and the network")
        }
        SdkError::DispatchFailure(_) => other(
            Unavailable,
            "no request could be made: check that credentials can be had (environment, profile, web identity, \
             container or instance)",
        ),
        SdkError::ServiceError(failure) => service(failure.err().code(), failure.raw().status().as_u16()),
        SdkError::ResponseError(_) => garbage(),
        _ => other(Internal, "a request could not be made: check region and key_ids"),
    }
}

fn garbage() -> Failure {
    let message = "what answers there is not AWS KMS, or its answer was damaged: check endpoint_url";
    Failure::Other(CryptoErrorKind::Unavailable, message.to_owned())
}

fn service(code: Option<&str>, status: u16) -> Failure {
    use CryptoErrorKind::{Internal, Unavailable};
    let Some(code) = code else {
        return if status >= 500 {
            Failure::Other(Unavailable, format!("it failed to answer (HTTP {status})"))
        } else {
            garbage()
        };
    };
    let remedy = match code {
        "NotFoundException" => {
            return Failure::NoKey(
                "there is no such key in this account and region: check region and the credentials' account; a key that \
                 was deleted is gone for good",
            );
        }
        "DisabledException" => {
            return Failure::NoKey("the key is disabled: `aws kms enable-key` brings it back");
        }
        // Said of a key that is to be deleted, and of one whose material was not imported or has gone.
        "KMSInvalidStateException" => {
            return Failure::NoKey(
                "the key is about to be deleted, or its material is not there: `aws kms cancel-key-deletion` and then \
                 `aws kms enable-key`, or importing the material, brings it back",
            );
        }
        "InvalidCiphertextException" | "IncorrectKeyException" => return Failure::Refused,
        "AccessDeniedException" => return Failure::Denied,
        "ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "TooManyRequestsException" => {
            (Unavailable, "it refuses requests for now: raise the account's request quota for KMS")
        }
        "KeyUnavailableException"
        | "KMSInternalException"
        | "DependencyTimeoutException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => (Unavailable, "it is in trouble: see AWS's health page"),
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => {
            (Internal, "the credentials have expired, or this machine's clock is wrong")
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken" => {
            (Internal, "the credentials are not known, or their secret is another one")
        }
        "InvalidKeyUsageException" => (Internal, "the key must be symmetric, for encryption and decryption"),
        _ if status >= 500 => (Unavailable, "it failed to answer"),
        _ => (Internal, "it refuses the request: check key_ids and region"),
    };
    Failure::Other(remedy.0, format!("{} ({code})", remedy.1))
}
