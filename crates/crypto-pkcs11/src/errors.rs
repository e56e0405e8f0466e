use cryptoki::error::{Error, RvError};
use tokenward_crypto::CryptoErrorKind;

/// What a failure of the module means, and the remedy.
pub(crate) fn explain(error: &Error) -> (CryptoErrorKind, String) {
    use CryptoErrorKind::{Internal, Unavailable};
    let Error::Pkcs11(code, function) = error else {
        return (Internal, format!("the module failed: {error}"));
    };
    let (kind, remedy) = match code {
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
            (Internal, "the PIN is wrong: give the PIN of the token's user, and mind that some tries lock it")
        }
        RvError::PinLocked => {
            (Internal, "the PIN is locked after too many wrong ones: the security officer resets it")
        }
        RvError::PinExpired | RvError::UserPinNotInitialized => {
            (Internal, "the token has no valid PIN for its user: the security officer sets one")
        }
        RvError::UserAnotherAlreadyLoggedIn => (
            Internal,
            "another user of this process is logged in to the token: give Tokenward a token of its own",
        ),
        RvError::KeyFunctionNotPermitted | RvError::KeyTypeInconsistent | RvError::KeySizeRange => {
            (Internal, "the key must be AES with 32 bytes, and allow CKA_ENCRYPT and CKA_DECRYPT")
        }
        RvError::MechanismInvalid | RvError::FunctionNotSupported | RvError::MechanismParamInvalid => {
            (Internal, "the HSM does not support CKM_AES_GCM with 12 bytes of nonce and a tag of 128 bits")
        }
        RvError::TokenWriteProtected
        | RvError::SessionReadOnly
        | RvError::ActionProhibited
        | RvError::FunctionRejected => {
            (Internal, "the HSM forbids it: check what its policy allows this user")
        }
        RvError::TokenNotPresent | RvError::TokenNotRecognized | RvError::DeviceRemoved => {
            (Unavailable, "the token is not there: check that the HSM is connected")
        }
        RvError::HostMemory | RvError::DeviceMemory | RvError::SessionCount => {
            (Unavailable, "the HSM has no room: lower max_sessions, or remove old objects")
        }
        code if is_of_session(code) => (Unavailable, "the session with the HSM ended: it is opened anew"),
        _ => (Unavailable, "see the HSM's own log"),
    };
    (kind, format!("{remedy} ({function}: {})", name(code)))
}

/// Whether a session that failed so is of no use any more.
pub(crate) fn is_of_session(code: &RvError) -> bool {
    matches!(
        code,
        RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::UserNotLoggedIn
            | RvError::OperationActive
            | RvError::CryptokiNotInitialized
            | RvError::ObjectHandleInvalid
            | RvError::KeyHandleInvalid
            | RvError::SlotIdInvalid
    )
}

/// The standard's own word for a code; the library's text is a whole paragraph.
fn name(code: &RvError) -> String {
    format!("{code:?}")
}

/// Whether decrypting failed so because of what was decrypted. GCM's authentication has no code of its own before PKCS #11 3.0.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange | RvError::DataInvalid,
            _
        )
    )
}

/// Whether it may be one: modules of old answer so to a wrong tag, and to much else.
pub(crate) fn may_be_refusal(error: &Error) -> bool {
    let codes = |code: &RvError| {
        matches!(
            code,
            RvError::GeneralError
                | RvError::FunctionFailed
                | RvError::SignatureInvalid
                | RvError::VendorDefined(_)
                | RvError::UnknownErrorCode(_)
        )
    };
    matches!(error, Error::Pkcs11(code, _) if codes(code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;

    #[test]
    fn what_only_people_can_mend_is_not_tried_again() {
        for (code, kind) in [
            (RvError::PinIncorrect, CryptoErrorKind::Internal),
            (RvError::PinLocked, CryptoErrorKind::Internal),
            (RvError::MechanismInvalid, CryptoErrorKind::Internal),
            (RvError::DeviceRemoved, CryptoErrorKind::Unavailable),
            (RvError::SessionHandleInvalid, CryptoErrorKind::Unavailable),
            (RvError::DeviceError, CryptoErrorKind::Unavailable),
            (RvError::UnknownErrorCode(7), CryptoErrorKind::Unavailable),
        ] {
            let said = name(&code);
            let (found, message) = explain(&Error::Pkcs11(code, Function::Login));
            assert_eq!(found, kind, "{message}");
            assert!(message.contains(&said), "{message}");
        }
    }
}
