//! A loaded PKCS#11 module and the tokens that it shows.

use super::{error::TokenError, token_info::TokenInfo};
use crate::config::pkcs11::spec::TokenSelector;
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    slot::Slot,
};
use std::{mem::ManuallyDrop, path::Path};

/// A loaded and initialised module. Finalised when dropped, so that a fresh start in the same process is possible.
pub(crate) struct Module {
    /// Never unloaded: a module may have threads and exit handlers of its own, which would then point nowhere.
    context: ManuallyDrop<Pkcs11>,
}

impl Module {
    /// Loads the module at `path` and initialises it.
    pub(crate) fn load(path: &Path) -> Result<Self, TokenError> {
        let context = Pkcs11::new(path).map_err(|error| unloadable(path, error))?;
        let module = Self { context: ManuallyDrop::new(context) };
        match module.context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // A module that could not be finalised is still of use.
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

    /// Every token that can be read, and why others cannot: one faulty token must not hide the rest.
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
        // Nothing is lost if it fails: the next start takes an initialised module as it is.
        let _ = Pkcs11::clone(&self.context).finalize();
    }
}

/// What a look at every slot of a module shows.
struct Scan {
    /// The tokens that can be read, and where they are.
    tokens: Vec<(Slot, TokenInfo)>,
    /// Why others cannot.
    unreadable: Vec<String>,
}

/// Why a file is not loaded as a module.
fn unloadable(path: &Path, error: Error) -> TokenError {
    let reason = match error {
        Error::LibraryLoading(error) => error.to_string(),
        Error::MissingSymbol(symbol) => format!("it is no PKCS#11 module, it lacks {symbol}"),
        other => other.to_string(),
    };
    TokenError::Module { path: path.into(), reason }
}

/// The tokens that a module shows. Needs no PIN.
pub fn tokens(module: &Path) -> Result<Vec<TokenInfo>, TokenError> {
    let scan = Module::load(module)?.scan()?;
    Ok(scan.tokens.into_iter().map(|(_, info)| info).collect())
}
