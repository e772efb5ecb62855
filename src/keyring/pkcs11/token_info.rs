//! What a token reports about itself.

use crate::config::pkcs11::spec::TokenSelector;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a token reports before a login.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    /// Without padding.
    pub label: String,
    /// Without padding.
    pub serial: String,
    pub model: String,
    pub manufacturer: String,
    /// A token holds keys only after it was initialised.
    pub initialised: bool,
    /// Remaining attempts at its PIN.
    pub pin: PinState,
    /// Whether the PIN is entered on the device itself.
    pub protected_path: bool,
    /// Whether keys can be used only after a login.
    pub login_required: bool,
}

impl TokenInfo {
    pub(super) fn is(&self, selector: &TokenSelector) -> bool {
        selector.names(&self.label, &self.serial)
    }
}

impl From<&cryptoki::slot::TokenInfo> for TokenInfo {
    fn from(info: &cryptoki::slot::TokenInfo) -> Self {
        // The standard pads with blanks, some modules with zeros.
        let text = |padded: &str| padded.trim_end_matches([' ', '\0']).to_owned();
        Self {
            label: text(info.label()),
            serial: text(info.serial_number()),
            model: text(info.model()),
            manufacturer: text(info.manufacturer_id()),
            initialised: info.token_initialized(),
            pin: PinState::of(info),
            protected_path: info.protected_authentication_path(),
            login_required: info.login_required(),
        }
    }
}

/// `"validator" (serial 8e6a…)`
impl fmt::Display for TokenInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.initialised {
            write!(f, "{:?} (serial {})", self.label, self.serial)
        } else {
            write!(f, "an uninitialised one ({})", self.model)
        }
    }
}

/// The remaining attempts at the user's PIN, as far as a token reports them.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum PinState {
    /// One more wrong PIN locks the token (`CKF_USER_PIN_FINAL_TRY`).
    FinalTry,
    /// No attempts are left (`CKF_USER_PIN_LOCKED`).
    Locked,
    /// A wrong PIN was sent since the last right one (`CKF_USER_PIN_COUNT_LOW`).
    Low,
    /// All attempts are left.
    Ok,
}

impl PinState {
    fn of(info: &cryptoki::slot::TokenInfo) -> Self {
        if info.user_pin_locked() {
            Self::Locked
        } else if info.user_pin_final_try() {
            Self::FinalTry
        } else if info.user_pin_count_low() {
            Self::Low
        } else {
            Self::Ok
        }
    }
}

impl fmt::Display for PinState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FinalTry => {
                "one more wrong PIN locks it (CKF_USER_PIN_FINAL_TRY): no PIN was sent; \
                 log in once with the right PIN, using the device's own tool, which resets the count"
            }
            Self::Locked => {
                "its PIN is locked (CKF_USER_PIN_LOCKED): no PIN was sent; \
                 unlock it with the security officer's PIN, using the device's own tool"
            }
            Self::Low => {
                "a wrong PIN was sent to it (CKF_USER_PIN_COUNT_LOW): no other PIN was sent; \
                 log in once with the right PIN, using the device's own tool, which resets the count"
            }
            Self::Ok => "all attempts at its PIN are left",
        })
    }
}
