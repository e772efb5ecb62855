//! A loaded PKCS#11 module and the tokens that it shows.

use super::{calls::about_to, error::TokenError, token_info::TokenInfo};
use crate::config::pkcs11::spec::TokenSelector;
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    slot::Slot,
};
use serde::{Deserialize, Serialize};
use std::{mem::ManuallyDrop, path::Path};

/// A loaded and initialised module. Finalised when dropped, so that the same process can initialise it again.
pub(crate) struct Module {
    /// Never unloaded: a module may have its own threads and exit handlers, whose code would be gone.
    context: ManuallyDrop<Pkcs11>,
}

impl Module {
    /// Loads the module at `path` and initialises it.
    pub(crate) fn load(path: &Path) -> Result<Self, TokenError> {
        about_to("load the module");
        let context = Pkcs11::new(path).map_err(|error| unloadable(path, error))?;
        let module = Self { context: ManuallyDrop::new(context) };
        about_to("initialise the module");
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
        about_to(ACTION);
        let slots = self.context.get_slots_with_token().map_err(TokenError::call(ACTION))?;
        let mut scan = Scan { tokens: vec![], unreadable: vec![] };
        for slot in slots {
            about_to("read a token");
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

/// What a module shows without a PIN.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Listing {
    pub tokens: Vec<TokenInfo>,
    /// The slots that cannot be read, each with the reason.
    pub unreadable: Vec<String>,
}

impl Module {
    /// The tokens that the module shows. Needs no PIN.
    pub(crate) fn listing(&self) -> Result<Listing, TokenError> {
        let Scan { tokens, unreadable } = self.scan()?;
        Ok(Listing { tokens: tokens.into_iter().map(|(_, info)| info).collect(), unreadable })
    }
}

/// The tokens that a module shows. Needs no PIN.
pub fn tokens(module: &Path) -> Result<Vec<TokenInfo>, TokenError> {
    let scan = Module::load(module)?.scan()?;
    Ok(scan.tokens.into_iter().map(|(_, info)| info).collect())
}
