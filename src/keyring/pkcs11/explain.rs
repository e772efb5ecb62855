//! What a token and a key say of themselves, as the reason for a refusal.
//!
//! None of it refuses anything: some modules say of themselves what is not so. It is appended to the error of a device that has
//! refused.

use super::{
    algorithms::{Curve, TokenAlgorithm},
    error::TokenError,
    token_info::TokenInfo,
};
use crate::config::pkcs11::profile::Profile;
use cryptoki::{
    error::{Error, RvError},
    mechanism::MechanismType,
    object::KeyType as CkKeyType,
};

/// What a key says of itself, as far as the device shows it.
#[derive(Debug, Default)]
pub(super) struct KeyFacts {
    pub(super) key_type: Option<CkKeyType>,
    pub(super) params: Vec<u8>,
    pub(super) may_sign: Option<bool>,
}

impl KeyFacts {
    /// What else it is than a key of this algorithm. `None` if it may be one.
    pub(super) fn other_kind(&self, algorithm: &dyn TokenAlgorithm, profile: &Profile) -> Option<String> {
        let key_type = self.key_type?;
        let curve = Curve::read(&self.params);
        let is_other_curve = curve.as_ref().is_some_and(|curve| curve.key_type != Some(algorithm.key_type()))
            && !algorithm.curve_encodings(profile).contains(&self.params);
        if algorithm.may_be(profile, key_type) && !is_other_curve {
            return None;
        }
        let on = curve.map_or_else(String::new, |curve| format!(" on the curve {curve}"));
        Some(format!("the key is a {key_type} key{on}, not an {} key", algorithm.key_type()))
    }

    /// Why a key like this may not sign.
    pub(super) fn reasons(&self, algorithm: &dyn TokenAlgorithm, profile: &Profile) -> Vec<String> {
        let mut reasons: Vec<_> = self.other_kind(algorithm, profile).into_iter().collect();
        if self.may_sign == Some(false) {
            reasons.push("the key is not made for signing (CKA_SIGN is false)".into());
        }
        reasons
    }
}

/// That the token does not list this mechanism, if so.
pub(super) fn missing_mechanism(mechanism: MechanismType, listed: &[MechanismType]) -> Option<String> {
    if listed.contains(&mechanism) {
        return None;
    }
    let names: Vec<_> =
        listed.iter().map(name_of).filter(|name| name.starts_with("CKM_EC") || name.contains("ED")).collect();
    let others = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let name = name_of(&mechanism);
    Some(format!("the token does not list the mechanism {name}; for elliptic curves it lists {others}"))
}

fn name_of(mechanism: &MechanismType) -> String {
    let name = mechanism.to_string();
    if name.starts_with("CKM_") { name } else { format!("{:#010x}", **mechanism) }
}

/// What a token says of its user's PIN and of itself. `pin_bytes` is the length of the PIN, which is not shown.
pub(super) fn token(info: &TokenInfo, pin_bytes: Option<usize>) -> Vec<String> {
    let limits = info.pin_bytes.clone().zip(pin_bytes.and_then(|bytes| u64::try_from(bytes).ok()));
    let length = limits.filter(|(limits, bytes)| !limits.contains(bytes)).map(|(limits, _)| {
        format!(
            "the token takes PINs of {} to {} bytes, and this one is longer or shorter",
            limits.start(),
            limits.end()
        )
    });
    let said = |flag: bool, text: &str| flag.then(|| text.to_owned());
    let reasons = [
        said(!info.initialised, "the token is not initialised: initialise it with the device's own tool"),
        said(
            info.initialised && info.login_required && !info.pin_initialised,
            "the token reports that its user has no PIN yet (CKF_USER_PIN_INITIALIZED is not set): set it with the \
             security officer's PIN, using the device's own tool",
        ),
        said(
            info.pin_to_be_changed,
            "the token reports that the PIN has to be changed before it can be used (CKF_USER_PIN_TO_BE_CHANGED): change it \
             with the device's own tool",
        ),
        said(info.in_error, "the token reports that it failed a test of its own (CKF_ERROR_STATE)"),
        length,
    ];
    reasons.into_iter().flatten().collect()
}

/// That nothing on the token can be changed, if it says so.
pub(super) fn write_protected(info: &TokenInfo) -> Option<String> {
    info.write_protected.then(|| "the token is write protected (CKF_WRITE_PROTECTED)".into())
}

/// The error with its reasons. They explain a refusal, not a device that has gone.
pub(super) fn explained(error: TokenError, reasons: &[String]) -> TokenError {
    let is_refusal = match &error {
        TokenError::Call { error: Error::Pkcs11(rv, _), .. }
        | TokenError::Login { error: Error::Pkcs11(rv, _), .. } => !is_gone(*rv),
        other => matches!(other, TokenError::WrongPin { .. }),
    };
    if is_refusal { TokenError::because(error, reasons) } else { error }
}

/// Whether the answer is about the session, the device or the memory, which no reason here explains.
fn is_gone(rv: RvError) -> bool {
    matches!(
        rv,
        RvError::CryptokiNotInitialized
            | RvError::DeviceMemory
            | RvError::DeviceRemoved
            | RvError::HostMemory
            | RvError::OperationActive
            | RvError::SessionClosed
            | RvError::SessionCount
            | RvError::SessionHandleInvalid
            | RvError::TokenNotPresent
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::pkcs11::spec::TokenSelector, keyring::pkcs11::error::ErrorClass};
    use cryptoki::context::Function;

    #[test]
    fn a_reason_changes_neither_the_class_nor_the_codes() {
        let reasons = ["the key is on another curve".to_owned(), "the token is old".to_owned()];
        let call = |rv| TokenError::call("sign")(Error::Pkcs11(rv, Function::SignInit));
        for rv in [RvError::MechanismInvalid, RvError::GeneralError, RvError::PinExpired] {
            let (plain, error) = (call(rv), explained(call(rv), &reasons));
            assert_eq!((error.class(), error.codes()), (plain.class(), plain.codes()));
            assert_eq!(error.to_string(), format!("{plain}; the key is on another curve; the token is old"));
            assert_eq!(explained(call(rv), &[]).to_string(), plain.to_string());
        }
        for gone in [RvError::DeviceRemoved, RvError::SessionHandleInvalid] {
            assert!(matches!(explained(call(gone), &reasons), TokenError::Call { .. }));
        }
        let wrong = Error::Pkcs11(RvError::PinIncorrect, Function::Login);
        let wrong = explained(TokenError::login(&TokenSelector::Label("a".into()), wrong), &reasons);
        assert!(matches!(wrong.cause(), TokenError::WrongPin { .. }) && wrong.class() == ErrorClass::Fatal);
    }

    #[test]
    fn a_key_that_wants_a_pin_that_is_not_kept_is_refused_and_not_asked_again_and_again() {
        assert_eq!(TokenError::LoginForEachUse.class(), ErrorClass::Rejected);
        assert!(TokenError::LoginForEachUse.to_string().contains("wants a login for each use"));
    }
}
