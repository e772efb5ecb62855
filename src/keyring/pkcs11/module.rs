//! A loaded PKCS#11 module and the tokens that it shows.

use super::{
    calls::about_to,
    error::{TokenError, answer},
    raw::{Arguments, RawModule},
    token_info::TokenInfo,
};
use crate::config::pkcs11::{profile::Profile, spec::TokenSelector};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::{Error, RvError},
    slot::Slot,
};
use serde::{Deserialize, Serialize};
use std::{ffi::CString, mem::ManuallyDrop, path::Path};

/// A loaded and initialised module. Finalised when dropped, so that the same process can initialise it again.
pub(crate) struct Module {
    /// Never unloaded: a module may have its own threads and exit handlers, whose code would be gone.
    context: ManuallyDrop<Pkcs11>,
    raw: RawModule,
    /// Whether the wrapper has functions of its own.
    separate: bool,
}

impl Module {
    /// Loads the module at `path` and initialises it, with the text for it in `profile`.
    pub(crate) fn load(path: &Path, profile: Option<&Profile>) -> Result<Self, TokenError> {
        about_to("load the module");
        let context = Pkcs11::new(path).map_err(|error| unloadable(path, error))?;
        let raw = RawModule::load(path).map_err(|error| unloadable(path, error))?;
        about_to("initialise the module");
        initialize(&raw, profile.and_then(|profile| profile.module.init_string.as_deref()))?;
        let separate = is_separate(&context)?;
        Ok(Self { context: ManuallyDrop::new(context), raw, separate })
    }

    /// The functions of the module.
    pub(crate) fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// The functions that are called past the wrapper, for a session of the wrapper. `None` if the module keeps its
    /// callers apart.
    pub(super) fn raw(&self) -> Option<&RawModule> {
        Some(&self.raw).filter(|_| !self.separate)
    }

    /// The one token that `selector` names. If several have its name, `choose` says which of them it is.
    pub(crate) fn find(
        &self,
        selector: &TokenSelector,
        choose: impl FnOnce(&[(Slot, TokenInfo)]) -> Option<usize>,
    ) -> Result<(Slot, TokenInfo), TokenError> {
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
                if let Some(chosen) = choose(&hits).filter(|chosen| *chosen < hits.len()) {
                    return Ok(hits.swap_remove(chosen));
                }
                Err(TokenError::AmbiguousToken { token: selector.clone(), hits: shown(&hits) })
            }
        }
    }

    /// Every token that can be read, and why others cannot: one faulty token must not hide the others.
    fn scan(&self) -> Result<Scan, TokenError> {
        const ACTION: &str = "list the tokens";
        about_to(ACTION);
        let slots = self.context.get_slots_with_token().map_err(TokenError::call(ACTION))?;
        let mut scan = Scan { tokens: vec![], unreadable: vec![] };
        for slot in slots {
            about_to("read a token");
            let read = self.raw.token_info(slot).map(|info| TokenInfo::from(&info));
            match read.and_then(|info| self.require_same(slot, &info).map(|()| info)) {
                Ok(info) => scan.tokens.push((slot, info)),
                Err(error) => {
                    let reason = TokenError::Call { action: "read a token", error };
                    scan.unreadable.push(format!("slot {slot} ({reason})"));
                }
            }
        }
        Ok(scan)
    }

    /// A module that keeps its callers apart may number its slots for each of them. A PIN must not go to another token than
    /// the one that was read.
    fn require_same(&self, slot: Slot, read: &TokenInfo) -> Result<(), Error> {
        if !self.separate {
            return Ok(());
        }
        let opened = self.context.get_token_info(slot)?;
        let is_same = (opened.label(), opened.serial_number()) == (&read.label, &read.serial);
        // As if the slot had no such token.
        if is_same { Ok(()) } else { Err(Error::Pkcs11(RvError::TokenNotPresent, Function::GetTokenInfo)) }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // An error does no harm: the next `load` accepts an initialised module.
        let _ = Pkcs11::clone(&self.context).finalize();
    }
}

/// Calls C_Initialize, with less and less if the module does not take what it is given: this process uses it on one thread.
fn initialize(module: &RawModule, text: Option<&str>) -> Result<(), TokenError> {
    // The configuration accepts no text with a zero in it.
    let text = text.and_then(|text| CString::new(text).ok());
    let text = text.as_deref();
    let tries = [Arguments::Locking(text), Arguments::NoLocking(text), Arguments::Null];
    let mut refusal = None;
    // Without the text, the module would open other tokens or none.
    for arguments in tries.into_iter().filter(|arguments| text.is_none() || !matches!(arguments, Arguments::Null)) {
        match module.initialize(arguments) {
            // A module that could not be finalised can still be used.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => return Ok(()),
            // The first refusal says most about what the module wants.
            Err(error) if is_about_arguments(&error) => refusal = refusal.or(Some(error)),
            Err(error) => return Err(uninitialised(error)),
        }
    }
    Err(uninitialised(refusal.unwrap_or(Error::NullFunctionPointer)))
}

/// Whether the module keeps apart those who ask for its functions, as the proxy of p11-kit does: then the wrapper has
/// functions of its own, and initialises them.
fn is_separate(context: &Pkcs11) -> Result<bool, TokenError> {
    if !matches!(context.get_library_info(), Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _))) {
        return Ok(false);
    }
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(true),
        Err(error) => Err(uninitialised(error)),
    }
}

/// Whether C_Initialize may accept other arguments.
fn is_about_arguments(error: &Error) -> bool {
    matches!(error, Error::Pkcs11(RvError::ArgumentsBad | RvError::CantLock | RvError::NeedToCreateThreads, _))
}

fn uninitialised(error: Error) -> TokenError {
    TokenError::Call { action: "initialise the PKCS#11 module", error }
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
        other => answer(&other),
    };
    TokenError::Module { path: path.into(), reason }
}

/// What a module shows before a login.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The tokens that can be read.
    pub tokens: Vec<TokenInfo>,
    /// The slots that cannot be read, each with the reason.
    pub unreadable: Vec<String>,
}

impl Module {
    /// The tokens that the module shows, and the slots that cannot be read. Needs no PIN.
    pub(crate) fn listing(&self) -> Result<Listing, TokenError> {
        let Scan { tokens, unreadable } = self.scan()?;
        Ok(Listing { tokens: tokens.into_iter().map(|(_, info)| info).collect(), unreadable })
    }
}

/// The tokens that a module shows, and the slots that cannot be read. Needs no PIN.
pub fn listing(module: &Path, profile: Option<&Profile>) -> Result<Listing, TokenError> {
    Module::load(module, profile)?.listing()
}
