//! A loaded PKCS#11 module and the tokens that it shows.

use super::error::TokenError;
use crate::config::pkcs11::spec::TokenSelector;
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    slot::Slot,
};
use std::{fmt, mem::ManuallyDrop, path::Path};

/// A loaded and initialised module. Finalised when dropped, so that the same process can initialise it again.
pub(crate) struct Module {
    /// Never unloaded: a module may have its own threads and exit handlers, whose code would be gone.
    context: ManuallyDrop<Pkcs11>,
}

impl Module {
    /// Loads the module at `path` and initialises it.
    pub(crate) fn load(path: &Path) -> Result<Self, TokenError> {
        let context = Pkcs11::new(path).map_err(|error| unloadable(path, error))?;
        let module = Self { context: ManuallyDrop::new(context) };
        match module.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // A module that could not be finalised can still be used.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(module),
            Err(error) => Err(TokenError::Call { action: "initialise the PKCS#11 module", error }),
        }
    }

    /// The functions of the module.
    pub(crate) fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// The one token that `selector` names.
    pub(crate) fn find(&self, selector: &TokenSelector) -> Result<(Slot, TokenInfo), TokenError> {
        let Scan { tokens, unreadable } = self.scan()?;
        let (mut hits, others): (Vec<_>, Vec<_>) = tokens.into_iter().partition(|(_, info)| info.is(selector));
        let shown = |tokens: &[(Slot, TokenInfo)]| tokens.iter().map(|(_, info)| info.to_string()).collect::<Vec<_>>();
        match hits.pop() {
            None => {
                let token = selector.clone();
                Err(TokenError::NoToken { token, present: [shown(&others), unreadable].concat() })
            }
            Some(hit) if hits.is_empty() => Ok(hit),
            Some(hit) => {
                hits.push(hit);
                Err(TokenError::AmbiguousToken { token: selector.clone(), hits: shown(&hits) })
            }
        }
    }

    /// Every token that can be read, and why others cannot: one faulty token must not hide the others.
    fn scan(&self) -> Result<Scan, TokenError> {
        const ACTION: &str = "list the tokens";
        let slots = self.context.get_slots_with_token().map_err(TokenError::call(ACTION))?;
        let mut scan = Scan { tokens: vec![], unreadable: vec![] };
        for slot in slots {
            match self.context.get_token_info(slot) {
                Ok(info) => scan.tokens.push((slot, TokenInfo::from(&info))),
                Err(error) => {
                    let reason = TokenError::Call { action: "read a token", error };
                    scan.unreadable.push(format!("slot {slot} ({reason})"));
                }
            }
        }
        Ok(scan)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // An error does no harm: the next `load` accepts an initialised module.
        let _ = Pkcs11::clone(&self.context).finalize();
    }
}

/// The tokens of a module.
struct Scan {
    /// The tokens that can be read, with their slots.
    tokens: Vec<(Slot, TokenInfo)>,
    /// Why others cannot be read.
    unreadable: Vec<String>,
}

/// The error for a file that cannot be loaded as a module.
fn unloadable(path: &Path, error: Error) -> TokenError {
    let reason = match error {
        Error::LibraryLoading(error) => error.to_string(),
        Error::MissingSymbol(symbol) => format!("it is not a PKCS#11 module: it lacks {symbol}"),
        other => other.to_string(),
    };
    TokenError::Module { path: path.into(), reason }
}

/// The tokens that a module shows. Needs no PIN.
pub fn tokens(module: &Path) -> Result<Vec<TokenInfo>, TokenError> {
    let scan = Module::load(module)?.scan()?;
    Ok(scan.tokens.into_iter().map(|(_, info)| info).collect())
}

/// What a token says about itself before anybody logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its label, without the blanks that pad it.
    pub label: String,
    /// Its serial number, without the blanks that pad it.
    pub serial: String,
    /// The model of the device.
    pub model: String,
    /// Who made the device.
    pub manufacturer: String,
    /// Whether it has been initialised, and so can hold keys.
    pub initialised: bool,
    /// How many attempts at its PIN are left.
    pub pin: PinState,
    /// Whether the PIN is entered at the device itself.
    pub protected_path: bool,
    /// Whether keys are used only after a login.
    pub login_required: bool,
}

impl TokenInfo {
    fn is(&self, selector: &TokenSelector) -> bool {
        match selector {
            TokenSelector::Label(label) => self.label == *label,
            TokenSelector::Serial(serial) => self.serial == *serial,
        }
    }
}

impl From<&cryptoki::slot::TokenInfo> for TokenInfo {
    fn from(info: &cryptoki::slot::TokenInfo) -> Self {
        // Padded with blanks by the standard, with zeros by some.
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
        match self.initialised {
            true => write!(f, "{:?} (serial {})", self.label, self.serial),
            false => write!(f, "one not initialised ({})", self.model),
        }
    }
}

/// How many attempts at the user's PIN a token has left, as far as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinState {
    /// One more wrong PIN locks the token (`CKF_USER_PIN_FINAL_TRY`).
    FinalTry,
    /// No more attempts (`CKF_USER_PIN_LOCKED`).
    Locked,
    /// A wrong PIN was sent since the last right one (`CKF_USER_PIN_COUNT_LOW`).
    Low,
    /// As many as ever.
    Ok,
}

impl PinState {
    fn of(info: &cryptoki::slot::TokenInfo) -> Self {
        match () {
            () if info.user_pin_locked() => Self::Locked,
            () if info.user_pin_final_try() => Self::FinalTry,
            () if info.user_pin_count_low() => Self::Low,
            () => Self::Ok,
        }
    }
}

impl fmt::Display for PinState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FinalTry => {
                "one more wrong PIN locks it (CKF_USER_PIN_FINAL_TRY): no PIN was sent; \
                 log in once with the right PIN by the device's own tool, which resets the count"
            }
            Self::Locked => {
                "its PIN is locked (CKF_USER_PIN_LOCKED): no PIN was sent; \
                 unlock it with the security officer's PIN by the device's own tool"
            }
            Self::Low => {
                "a wrong PIN was sent to it (CKF_USER_PIN_COUNT_LOW): no further one was sent; \
                 log in once with the right PIN by the device's own tool, which resets the count"
            }
            Self::Ok => "its PIN is well",
        })
    }
}
