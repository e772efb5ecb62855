//! Why a token did not carry out a request, and whether to try again.

use super::token_info::PinState;
use crate::{
    config::pkcs11::spec::{ObjectSelector, TokenSelector},
    process::foreign::ForeignText,
};
use cryptoki::error::{Error, RvError};
use highwater_core::consensus::KeyType;
use std::{fmt, path::PathBuf};

/// What to do about a [`TokenError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The token or the key is not there now, because it is unplugged or out of reach. Trying again later does no harm.
    Absent,
    /// The session, the device or the transport failed: open the token anew and try once more.
    Broken,
    /// An operator has to act first, as after a wrong PIN. The token is looked at again, but gets no PIN before that.
    Fatal,
    /// The device rejected the request, and would reject it again.
    Rejected,
}

/// Why a token did not carry out a request. Never holds a PIN or a byte of a secret key.
#[derive(Debug)]
pub enum TokenError {
    /// More than one private key matches.
    AmbiguousKey { object: ObjectSelector, hits: Vec<String> },
    /// More than one token matches.
    AmbiguousToken { token: TokenSelector, hits: Vec<String> },
    /// A device refused something, and what it says of itself may be the reason.
    Because { error: Box<TokenError>, reasons: String },
    /// A function of the module failed.
    Call {
        /// The action that failed, as in "cannot {action}".
        action: &'static str,
        error: Error,
    },
    /// The id or label for a new key is taken.
    Exists { object: ObjectSelector },
    /// An Ed25519 key cannot be imported without its seed.
    Expanded,
    /// The device refused the login for another reason than a wrong PIN.
    Login { token: TokenSelector, error: Error },
    /// The key wants a login for each use, and no PIN is kept for it.
    LoginForEachUse,
    /// The module cannot be loaded.
    Module {
        path: PathBuf,
        /// The loader's error.
        reason: String,
    },
    /// No private key matches.
    NoKey {
        object: ObjectSelector,
        /// The private keys on the token.
        present: Vec<String>,
    },
    /// No PIN was given, and the token has no keypad of its own.
    NoPin { token: TokenSelector },
    /// No token matches.
    NoToken {
        token: TokenSelector,
        /// The tokens that the module shows.
        present: Vec<String>,
    },
    /// The PIN is not sent. No login was tried.
    NotSent {
        /// Why not, and what to do: a whole text.
        why: String,
    },
    /// An action failed, and what it left on the token could not be removed.
    NotRemoved {
        /// Why the action failed.
        first: Box<TokenError>,
        /// Why its remains could not be removed.
        then: Box<TokenError>,
    },
    /// The token reports that few or no attempts at its PIN are left. No PIN was sent.
    PinAtRisk { token: TokenSelector, state: PinState },
    /// The given PIN cannot be one of this device. It was not sent.
    PinForm {
        token: TokenSelector,
        /// What is wrong; completes the sentence "the PIN ...".
        what: &'static str,
    },
    /// The signature of a new key does not verify.
    SelfTest,
    /// The device returned something that is not a signature.
    Signature {
        /// Its length.
        bytes: usize,
        /// Whose signature it should be.
        key_type: KeyType,
    },
    /// The message is longer than the device can sign.
    TooLong { bytes: usize, max: usize },
    /// A new key is on the token and signs, but its public key cannot be read.
    Unreadable,
    /// According to the profile, the device does not support this type of key.
    Unsupported { key_type: KeyType, profile: String },
    /// The token did not accept the PIN. It counts attempts: never try again without an operator.
    WrongPin { token: TokenSelector, error: Error },
}

impl TokenError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            // Somebody may take the other one away, or be replacing the module's file now. None of it costs a PIN.
            Self::AmbiguousKey { .. }
            | Self::AmbiguousToken { .. }
            | Self::Module { .. }
            | Self::NoKey { .. }
            | Self::NoToken { .. } => ErrorClass::Absent,
            Self::NoPin { .. }
            | Self::NotSent { .. }
            | Self::PinAtRisk { .. }
            | Self::PinForm { .. }
            | Self::WrongPin { .. } => ErrorClass::Fatal,
            Self::Because { error, .. } => error.class(),
            Self::Call { error, .. } => class(error),
            // Any other answer could be this device's answer to a wrong PIN.
            Self::Login { error: Error::Pkcs11(rv, _), .. } if is_trouble(*rv) => ErrorClass::Broken,
            Self::Login { .. } => ErrorClass::Fatal,
            Self::NotRemoved { first, .. } => first.class(),
            Self::Signature { .. } => ErrorClass::Broken,
            Self::Exists { .. }
            | Self::Expanded
            | Self::LoginForEachUse
            | Self::SelfTest
            | Self::TooLong { .. }
            | Self::Unreadable
            | Self::Unsupported { .. } => ErrorClass::Rejected,
        }
    }

    /// The error itself, without what the device says of itself.
    pub fn cause(&self) -> &Self {
        match self {
            Self::Because { error, .. } => error.cause(),
            itself => itself,
        }
    }

    /// The return values that the module answered, by their names in the standard (`CKR_PIN_INCORRECT`). Those that have
    /// no name there are left out.
    pub(crate) fn codes(&self) -> Vec<String> {
        match self {
            Self::Call { error: Error::Pkcs11(rv, _), .. }
            | Self::Login { error: Error::Pkcs11(rv, _), .. }
            | Self::WrongPin { error: Error::Pkcs11(rv, _), .. } => standard_name(*rv).into_iter().collect(),
            Self::Because { error, .. } => error.codes(),
            Self::NotRemoved { first, then } => [first.codes(), then.codes()].concat(),
            _ => Vec::new(),
        }
    }

    /// The error with these reasons, if there are any.
    pub(super) fn because(error: Self, reasons: &[String]) -> Self {
        if reasons.is_empty() {
            return error;
        }
        Self::Because { error: Box::new(error), reasons: reasons.join("; ") }
    }

    /// Makes an error for a module's function that failed.
    pub(crate) fn call(action: &'static str) -> impl FnOnce(Error) -> Self {
        move |error| Self::Call { action, error }
    }

    /// Makes an error for a failed login.
    pub(crate) fn login(token: &TokenSelector, error: Error) -> Self {
        let token = token.clone();
        match error {
            Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
                Self::WrongPin { token, error }
            }
            _ => Self::Login { token, error },
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AmbiguousKey { object, hits } => {
                write!(f, "{} private keys have {object}: {}; ", hits.len(), list(hits))?;
                f.write_str("select the key by something that only one of them has, or delete the wrong ones")
            }
            Self::AmbiguousToken { token, hits } => {
                write!(f, "more than one token matches {token}: {}; select the token by its serial", list(hits))
            }
            Self::Because { error, reasons } => write!(f, "{error}; {reasons}"),
            Self::Call { action, error } => write!(f, "cannot {action}: {}", answer(error)),
            Self::Exists { object } => {
                write!(f, "a key with {object} is on the token already and is not overwritten: choose another")
            }
            Self::Expanded => {
                f.write_str(
                    "this Ed25519 key is expanded and its seed is lost, but a PKCS#11 device imports only seeds: ",
                )?;
                f.write_str("import it from a file that holds the seed, or generate a new key")
            }
            Self::Login { token, error } => write!(f, "cannot log in to {token}: {}", answer(error)),
            Self::LoginForEachUse => {
                f.write_str(
                    "the key wants a login for each use (CKA_ALWAYS_AUTHENTICATE), which only a PIN that Highwater ",
                )?;
                f.write_str("keeps can give it: configure `pin`, or make a key without that attribute")
            }
            Self::Module { path, reason } => {
                write!(f, "cannot load the PKCS#11 module {}: {reason}; ", path.display())?;
                f.write_str("install the device's software, or correct the path")
            }
            Self::NoKey { object, present } => {
                write!(f, "no private key on the token has {object}; the token holds {}", list(present))
            }
            Self::NoPin { token } => {
                write!(f, "{token} needs a PIN, but none is configured: set its source with `pin`")
            }
            Self::NotSent { why } => f.write_str(why),
            Self::NoToken { token, present } => write!(f, "there is no {token}; the module shows {}", list(present)),
            Self::NotRemoved { first, then } => {
                write!(f, "{first}; and what this left on the token could not be removed ({then}): ")?;
                f.write_str("list the token's keys and delete what is left of the new one")
            }
            Self::PinAtRisk { token, state } => write!(f, "{token} reports that {state}"),
            Self::PinForm { token, what } => write!(f, "no PIN was sent to {token}: the PIN {what}"),
            Self::SelfTest => {
                f.write_str("the new key's signature over the self-test does not verify, so the key was removed again")
            }
            Self::Signature { bytes, key_type } => {
                let length = key_type.signature_len();
                write!(f, "the device returned {bytes} bytes that are not a {length}-byte signature")
            }
            Self::TooLong { bytes, max } => {
                write!(f, "the message has {bytes} bytes, but this device signs at most {max}")
            }
            Self::Unreadable => {
                f.write_str(
                    "the new key is on the token and signs, but the device does not show its public half. The key ",
                )?;
                f.write_str(
                    "was not removed: read its public half with the device's own tool, and pin it as `public_key`",
                )
            }
            Self::Unsupported { key_type, profile } => {
                write!(f, "devices of profile {profile} do not support {key_type} keys")
            }
            Self::WrongPin { token, error } => {
                write!(
                    f,
                    "{token} did not accept the PIN ({}). The same PIN is not sent again, because the ",
                    answer(error)
                )?;
                f.write_str("token locks after a few wrong ones: put the right PIN into its source")
            }
        }
    }
}

impl std::error::Error for TokenError {}

/// The class of an error of any function except C_Login.
fn class(error: &Error) -> ErrorClass {
    use RvError as Rv;
    let Error::Pkcs11(rv, _) = error else {
        // A function is missing, or an answer makes no sense. The next time will be the same.
        return ErrorClass::Rejected;
    };
    match rv {
        Rv::ActionProhibited
        | Rv::AttributeReadOnly
        | Rv::AttributeSensitive
        | Rv::AttributeTypeInvalid
        | Rv::AttributeValueInvalid
        | Rv::CurveNotSupported
        | Rv::DataInvalid
        | Rv::DataLenRange
        | Rv::DomainParamsInvalid
        | Rv::FunctionNotSupported
        | Rv::FunctionRejected
        | Rv::KeyFunctionNotPermitted
        | Rv::KeySizeRange
        | Rv::KeyTypeInconsistent
        | Rv::MechanismInvalid
        | Rv::MechanismParamInvalid
        | Rv::PublicKeyInvalid
        | Rv::SessionReadOnly
        | Rv::TemplateIncomplete
        | Rv::TemplateInconsistent
        | Rv::TokenWriteProtected => ErrorClass::Rejected,
        Rv::CantLock
        | Rv::NeedToCreateThreads
        | Rv::PinExpired
        | Rv::PinIncorrect
        | Rv::PinInvalid
        | Rv::PinLenRange
        | Rv::PinLocked
        | Rv::UserPinNotInitialized => ErrorClass::Fatal,
        _ => ErrorClass::Broken,
    }
}

/// Whether an answer to C_Login is about the session, the device or the transport, and so cannot mean a wrong PIN.
pub(super) fn is_trouble(rv: RvError) -> bool {
    use RvError as Rv;
    matches!(
        rv,
        Rv::CryptokiNotInitialized
            | Rv::DeviceError
            | Rv::DeviceMemory
            | Rv::DeviceRemoved
            | Rv::FunctionFailed
            | Rv::GeneralError
            | Rv::HostMemory
            | Rv::OperationActive
            | Rv::SessionClosed
            | Rv::SessionCount
            | Rv::SessionHandleInvalid
            | Rv::SlotIdInvalid
            | Rv::TokenNotPresent
    )
}

/// The error of a module in the terms of its manual: `C_Sign answered CKR_DEVICE_ERROR`.
pub(super) fn answer(error: &Error) -> String {
    match error {
        Error::Pkcs11(rv, function) => format!("C_{function:?} answered {}", rv_name(*rv)),
        other => other.to_string(),
    }
}

/// The name of a return value in the standard, or the number of one that has none.
fn rv_name(rv: RvError) -> String {
    match rv {
        RvError::UnknownErrorCode(number) | RvError::VendorDefined(number) => format!("CK_RV {number:#010x}"),
        named => standard_name(named).expect("every other one has a name"),
    }
}

/// The name of a return value in the standard, if it has one there.
fn standard_name(rv: RvError) -> Option<String> {
    if matches!(rv, RvError::UnknownErrorCode(_) | RvError::VendorDefined(_)) {
        return None;
    }
    let mut name = "CKR".to_owned();
    for letter in format!("{rv:?}").chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    Some(name)
}

fn list(items: &[String]) -> String {
    match items {
        [] => "none".to_owned(),
        // Labels and serials come from the module.
        _ => items.iter().map(|item| ForeignText::from(item.as_str()).to_string()).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptoki::context::Function;

    fn failed(rv: RvError) -> Error {
        Error::Pkcs11(rv, Function::Sign)
    }

    fn token() -> TokenSelector {
        TokenSelector::Label("validator".to_owned())
    }

    #[test]
    fn answers_are_named_as_in_the_standard() {
        for (rv, text) in [
            (RvError::DeviceError, "cannot sign: C_Sign answered CKR_DEVICE_ERROR"),
            (RvError::VendorDefined(0x8000_0001), "cannot sign: C_Sign answered CK_RV 0x80000001"),
            (RvError::UnknownErrorCode(0x77), "cannot sign: C_Sign answered CK_RV 0x00000077"),
            (RvError::KeyFunctionNotPermitted, "cannot sign: C_Sign answered CKR_KEY_FUNCTION_NOT_PERMITTED"),
        ] {
            assert_eq!(TokenError::call("sign")(failed(rv)).to_string(), text);
        }
    }

    #[test]
    fn an_error_knows_the_codes_that_the_module_answered() {
        let call = |rv| TokenError::call("sign")(failed(rv));
        assert_eq!(call(RvError::DeviceError).codes(), ["CKR_DEVICE_ERROR"]);
        assert!(call(RvError::VendorDefined(0x8000_0001)).codes().is_empty());
        assert_eq!(TokenError::login(&token(), failed(RvError::PinIncorrect)).codes(), ["CKR_PIN_INCORRECT"]);
        let both = TokenError::NotRemoved {
            first: Box::new(call(RvError::DeviceError)),
            then: Box::new(call(RvError::DeviceRemoved)),
        };
        assert_eq!(both.codes(), ["CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED"]);
        // The words of a label are no code.
        let token = TokenSelector::Label("CKR_DEVICE_ERROR".to_owned());
        assert!(TokenError::NoPin { token }.codes().is_empty());
    }

    #[test]
    fn only_clear_answers_are_final_and_pins_are_fatal() {
        for (rv, class) in [
            (RvError::DataLenRange, ErrorClass::Rejected),
            (RvError::DeviceRemoved, ErrorClass::Broken),
            (RvError::GeneralError, ErrorClass::Broken),
            (RvError::KeyHandleInvalid, ErrorClass::Broken),
            (RvError::MechanismInvalid, ErrorClass::Rejected),
            (RvError::OperationActive, ErrorClass::Broken),
            (RvError::PinLocked, ErrorClass::Fatal),
            (RvError::UserNotLoggedIn, ErrorClass::Broken),
            (RvError::VendorDefined(0x8000_0001), ErrorClass::Broken),
        ] {
            assert_eq!(TokenError::call("sign")(failed(rv)).class(), class, "{rv:?}");
        }
    }

    #[test]
    fn a_login_is_repeated_only_after_what_cannot_be_a_wrong_pin() {
        for (rv, class, wrong) in [
            (RvError::ArgumentsBad, ErrorClass::Fatal, false),
            (RvError::DeviceRemoved, ErrorClass::Broken, false),
            (RvError::PinIncorrect, ErrorClass::Fatal, true),
            (RvError::PinLenRange, ErrorClass::Fatal, true),
            (RvError::PinLocked, ErrorClass::Fatal, false),
            (RvError::SessionCount, ErrorClass::Broken, false),
            (RvError::VendorDefined(0x8000_0001), ErrorClass::Fatal, false),
        ] {
            let error = TokenError::login(&token(), failed(rv));
            assert_eq!(error.class(), class, "{rv:?}");
            assert_eq!(matches!(error, TokenError::WrongPin { .. }), wrong, "{rv:?}");
        }
    }

    #[test]
    fn what_failed_first_decides_although_its_remains_stay() {
        let then = Box::new(TokenError::call("delete an object")(failed(RvError::DeviceRemoved)));
        let error = TokenError::NotRemoved { first: Box::new(TokenError::SelfTest), then };
        assert_eq!(error.class(), ErrorClass::Rejected);
        assert!(error.to_string().contains("CKR_DEVICE_REMOVED"), "{error}");
    }
}
