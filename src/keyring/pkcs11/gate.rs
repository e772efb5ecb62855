//! The gate before C_Login: who decides whether a PIN may be sent, and learns what became of it.

use super::{error::TokenError, token_info::TokenInfo};
use crate::keyring::child::login_memory::{LoginMemory, LoginOutcome, PinToSend, TokenBeforeLogin};
use cryptoki::error::{Error, RvError};
use std::path::PathBuf;

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

/// Whether a token that was logged in to has refused its PIN since, for one use of a key.
pub(super) fn is_refusal(error: &TokenError) -> bool {
    match error.cause() {
        TokenError::WrongPin { .. } => true,
        TokenError::Call { error: Error::Pkcs11(rv, _), .. } => {
            matches!(rv, RvError::PinExpired | RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLocked)
        }
        _ => false,
    }
}

/// The notes of one command about its login.
pub struct CommandLogin<'a> {
    memory: LoginMemory,
    pin: Option<&'a [u8]>,
    source: &'a str,
    token: Option<TokenBeforeLogin>,
}

impl<'a> CommandLogin<'a> {
    /// `directory` has the notes, and `source` is where the PIN comes from, in words.
    pub fn new(directory: Option<PathBuf>, pin: Option<&'a [u8]>, source: &'a str) -> Self {
        Self { memory: LoginMemory::new(directory), pin, source, token: None }
    }

    /// Notes that the PIN is sent now. The error says why it must not.
    pub fn begins(&mut self, token: TokenBeforeLogin) -> Result<(), String> {
        self.memory.begin(&token, self.sent())?;
        self.token = Some(token);
        Ok(())
    }

    /// Notes what became of the login.
    pub fn ended(&mut self, outcome: &LoginOutcome) {
        if let Some(token) = self.token.take() {
            self.memory.end(&token, self.sent(), outcome);
        }
    }

    fn sent(&self) -> PinToSend<'a> {
        PinToSend { pin: self.pin, source: self.source, is_read_again: true, proven: false, doubts: 0 }
    }
}
