//! What a token reports about itself.

use crate::config::pkcs11::spec::TokenSelector;
use cryptoki_sys::{
    CK_FLAGS, CK_TOKEN_INFO, CK_ULONG, CKF_ERROR_STATE, CKF_LOGIN_REQUIRED, CKF_PROTECTED_AUTHENTICATION_PATH,
    CKF_TOKEN_INITIALIZED, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED,
    CKF_USER_PIN_LOCKED, CKF_USER_PIN_TO_BE_CHANGED, CKF_WRITE_PROTECTED,
};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive};

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
    /// Whether the user has a PIN yet.
    pub pin_initialised: bool,
    /// Whether the user has to change the PIN before anything else.
    pub pin_to_be_changed: bool,
    /// Whether nothing on it can be changed.
    pub write_protected: bool,
    /// Whether it failed a test of its own.
    pub in_error: bool,
    /// The lengths of a PIN, in bytes, if it reports lengths that can be.
    pub pin_bytes: Option<RangeInclusive<u64>>,
}

impl TokenInfo {
    pub(super) fn is(&self, selector: &TokenSelector) -> bool {
        selector.names(&self.label, &self.serial)
    }
}

/// Reads only what is needed: a clock, a version or a counter in any form must not hide a token.
impl From<&CK_TOKEN_INFO> for TokenInfo {
    fn from(info: &CK_TOKEN_INFO) -> Self {
        let has = |flag: CK_FLAGS| info.flags & flag != 0;
        Self {
            label: text(&info.label),
            serial: text(&info.serialNumber),
            model: text(&info.model),
            manufacturer: text(&info.manufacturerID),
            initialised: has(CKF_TOKEN_INITIALIZED),
            pin: PinState::of(info.flags),
            protected_path: has(CKF_PROTECTED_AUTHENTICATION_PATH),
            login_required: has(CKF_LOGIN_REQUIRED),
            pin_initialised: has(CKF_USER_PIN_INITIALIZED),
            pin_to_be_changed: has(CKF_USER_PIN_TO_BE_CHANGED),
            write_protected: has(CKF_WRITE_PROTECTED),
            in_error: has(CKF_ERROR_STATE),
            pin_bytes: pin_bytes(info.ulMinPinLen, info.ulMaxPinLen),
        }
    }
}

/// The standard pads with blanks, some modules end with a zero, and what follows it is not text.
fn text(padded: &[u8]) -> String {
    let text = padded.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim_end_matches(' ').to_owned()
}

/// Some modules report 0, or a number that stands for none.
fn pin_bytes(min: CK_ULONG, max: CK_ULONG) -> Option<RangeInclusive<u64>> {
    /// More than any PIN.
    const UNLIMITED: CK_ULONG = 1 << 20;
    (1..UNLIMITED).contains(&max).then_some(min..=max).filter(|range| !range.is_empty())
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
    fn of(flags: CK_FLAGS) -> Self {
        if flags & CKF_USER_PIN_LOCKED != 0 {
            Self::Locked
        } else if flags & CKF_USER_PIN_FINAL_TRY != 0 {
            Self::FinalTry
        } else if flags & CKF_USER_PIN_COUNT_LOW != 0 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_a_version_and_a_counter_in_any_form_hide_nothing() {
        let mut raw = CK_TOKEN_INFO {
            label: *b"validator                       ",
            serialNumber: *b"0123\0\xff\xfe\xfdgarbage\xff",
            model: [b' '; 16],
            manufacturerID: [0xfe; 32],
            flags: CKF_TOKEN_INITIALIZED | CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_TO_BE_CHANGED,
            ulMinPinLen: 4,
            ulMaxPinLen: 8,
            ..CK_TOKEN_INFO::default()
        };
        for byte in [0, b' ', b'x', 0xff] {
            raw.utcTime = [byte; 16];
            raw.ulMaxSessionCount = CK_ULONG::MAX - CK_ULONG::from(byte);
            raw.hardwareVersion.minor = byte;
            let info = TokenInfo::from(&raw);
            assert_eq!((info.label.as_str(), info.serial.as_str(), info.model.as_str()), ("validator", "0123", ""));
            assert_eq!((info.pin, info.pin_bytes.clone()), (PinState::Low, Some(4..=8)));
            assert!(info.initialised && info.pin_to_be_changed && !info.pin_initialised && !info.write_protected);
        }
    }

    #[test]
    fn lengths_of_a_pin_that_cannot_be_are_none() {
        for (min, max) in [(0, 0), (8, 0), (8, 4), (0, CK_ULONG::MAX), (4, CK_ULONG::MAX - 1)] {
            assert_eq!(pin_bytes(min, max), None, "{min} to {max}");
        }
        assert_eq!(pin_bytes(0, 255), Some(0..=255));
    }
}
