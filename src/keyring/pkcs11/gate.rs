//! The gate before C_Login: who decides whether a PIN may be sent, and learns what became of it.

use super::{error::TokenError, token_info::TokenInfo};
use crate::keyring::child::login_memory::{LoginMemory, LoginOutcome, PinToSend, TokenBeforeLogin};
use cryptoki::error::{Error, RvError};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Is asked right before a login, and told the answer right after it.
pub trait LoginGate {
    /// The error says why there must be no login now.
    fn before(&mut self, token: &TokenInfo) -> Result<(), TokenError>;

    fn after(&mut self, outcome: LoginOutcome);
}

/// What an answer to C_Login says about the PIN.
pub(super) fn outcome(answer: &Result<(), Error>) -> LoginOutcome {
    use RvError as Rv;
    match answer {
        Ok(()) => LoginOutcome::Accepted,
        // No PIN was looked at.
        Err(Error::Pkcs11(Rv::UserAlreadyLoggedIn, _)) => LoginOutcome::Trouble,
        Err(Error::Pkcs11(rv, _)) if super::error::is_trouble(*rv) => LoginOutcome::Trouble,
        Err(
            error @ Error::Pkcs11(
                Rv::PinExpired
                | Rv::PinIncorrect
                | Rv::PinInvalid
                | Rv::PinLenRange
                | Rv::PinLocked
                | Rv::UserPinNotInitialized,
                _,
            ),
        ) => LoginOutcome::Refused(super::error::answer(error)),
        Err(error) => LoginOutcome::Unclear(super::error::answer(error)),
    }
}

/// The gate of a command, which reads the memory itself.
pub struct CommandGate {
    memory: LoginMemory,
    module: PathBuf,
    pin: Option<Zeroizing<Vec<u8>>>,
    source: String,
    token: Option<TokenBeforeLogin>,
}

impl CommandGate {
    /// `directory` has the notes, and `source` is where the PIN comes from, in words.
    pub fn new(directory: Option<PathBuf>, module: PathBuf, pin: Option<Zeroizing<Vec<u8>>>, source: String) -> Self {
        Self { memory: LoginMemory::new(directory), module, pin, source, token: None }
    }
}

impl LoginGate for CommandGate {
    fn before(&mut self, token: &TokenInfo) -> Result<(), TokenError> {
        let token = TokenBeforeLogin::new(&self.module, token);
        let pin = self.pin.as_ref().map(|pin| pin.as_slice());
        let pin = PinToSend { pin, source: &self.source, is_read_again: true, proven: false };
        self.memory.begin(&token, pin).map_err(|why| TokenError::NotSent { why })?;
        self.token = Some(token);
        Ok(())
    }

    fn after(&mut self, outcome: LoginOutcome) {
        if let (Some(token), Some(_)) = (self.token.take(), &self.pin) {
            self.memory.end(&token, false, &outcome);
        }
    }
}
