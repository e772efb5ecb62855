//! The messages of signer, spawner and children, each in a frame of [`crate::process::frames`]. A malformed body ends the
//! connection.

use super::login_memory::{LoginOutcome, TokenBeforeLogin};
use crate::{keyring::device::Trouble, process::foreign::ForeignText};
use serde::{Deserialize, Serialize};

/// The body of a request to sign: the key's index and the message.
pub struct SignRequest;

impl SignRequest {
    pub fn encode(key: usize, message: &[u8]) -> Vec<u8> {
        let key = u32::try_from(key).expect("a token has few keys");
        [&key.to_le_bytes()[..], message].concat()
    }

    /// Returns the key's index and the message.
    pub fn decode(body: &[u8]) -> Option<(usize, &[u8])> {
        let (key, message) = body.split_first_chunk::<4>()?;
        Some((usize::try_from(u32::from_le_bytes(*key)).ok()?, message))
    }
}

/// What the signer asks of the spawner, about the token with this number.
#[derive(Debug, Deserialize, Serialize)]
pub enum SpawnerRequest {
    /// A new child. The answer is a descriptor, or why there is none.
    Child(u32),
    /// How the child ended, and what its module wrote last. The answer is a text that may be empty.
    LastWords(u32),
    /// The child wants to log in. The answer says whether it may.
    LoginBegins(u32, TokenBeforeLogin),
    /// The child has logged in, or could not. There is no answer.
    LoginEnded(u32, TokenBeforeLogin, LoginOutcome),
}

/// What a child reports while it opens its token.
#[derive(Debug)]
pub enum ChildReport {
    /// It calls C_Login as soon as it gets an empty frame. From then on it must not be killed.
    LoginBegins(TokenBeforeLogin),
    LoginEnded(LoginOutcome),
    /// It is ready to sign. In JSON, the public keys that it found.
    Ready(Vec<u8>),
}

impl ChildReport {
    pub fn encode(&self) -> Vec<u8> {
        let (tag, body) = match self {
            Self::LoginBegins(token) => (LOGIN_BEGINS, serde_json::to_vec(token)),
            Self::LoginEnded(outcome) => (LOGIN_ENDED, serde_json::to_vec(outcome)),
            Self::Ready(keys) => (OK, Ok(keys.clone())),
        };
        [&[tag], body.unwrap_or_default().as_slice()].concat()
    }

    /// Decodes a report, or the error of a child that could not open its token.
    pub fn decode(body: &[u8]) -> Result<Self, Trouble> {
        let malformed = |_| Trouble::Broken("the child process sent a malformed report of its login".into());
        match body.split_first() {
            Some((&LOGIN_BEGINS, rest)) => serde_json::from_slice(rest).map(Self::LoginBegins).map_err(malformed),
            Some((&LOGIN_ENDED, rest)) => serde_json::from_slice(rest).map(Self::LoginEnded).map_err(malformed),
            _ => decode_answer(body).map(Self::Ready),
        }
    }
}

const OK: u8 = 0;
const BROKEN: u8 = 1;
const FATAL: u8 = 2;
const REJECTED: u8 = 3;
const LOGIN_BEGINS: u8 = 4;
const LOGIN_ENDED: u8 = 5;
/// As fatal, and the token has refused the PIN that it accepted at the login.
const PIN_REFUSED: u8 = 6;

/// Encodes an answer: bytes or an error.
pub fn encode_answer(answer: &Result<Vec<u8>, Trouble>) -> Vec<u8> {
    let (tag, body) = match answer {
        Ok(body) => (OK, body.as_slice()),
        Err(
            Trouble::Broken(text)
            | Trouble::LoggingIn(text)
            | Trouble::Temporary(text)
            | Trouble::Unreached(text)
            | Trouble::WrongPassword(text),
        ) => (BROKEN, text.as_bytes()),
        Err(Trouble::Fatal(text)) => (FATAL, text.as_bytes()),
        Err(Trouble::Rejected(text)) => (REJECTED, text.as_bytes()),
        Err(trouble @ (Trouble::Busy | Trouble::Late)) => (BROKEN, trouble.text().as_bytes()),
    };
    [&[tag], body].concat()
}

/// Encodes the answer of a token that refused its PIN for one use of a key.
pub fn encode_refused_pin(text: &str) -> Vec<u8> {
    [&[PIN_REFUSED], text.as_bytes()].concat()
}

/// Whether an answer says so.
pub fn is_refused_pin(body: &[u8]) -> bool {
    body.first() == Some(&PIN_REFUSED)
}

/// Decodes an answer. A malformed one means that the child is broken.
pub fn decode_answer(body: &[u8]) -> Result<Vec<u8>, Trouble> {
    let Some((tag, rest)) = body.split_first() else {
        return Err(Trouble::Broken("the child process sent an empty answer".into()));
    };
    let text = || ForeignText::from_bytes(rest);
    match *tag {
        OK => Ok(rest.to_vec()),
        FATAL | PIN_REFUSED => Err(Trouble::Fatal(text())),
        REJECTED => Err(Trouble::Rejected(text())),
        BROKEN => Err(Trouble::Broken(text())),
        _ => Err(Trouble::Broken("the child process sent an unknown kind of answer".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::frames::BODY_MAX_BYTES;

    #[test]
    fn a_frame_has_room_for_the_longest_request_of_a_node() {
        const { assert!(BODY_MAX_BYTES >= highwater_core::privval::frame::REQUEST_MAX_BYTES + 4) };
    }

    #[test]
    fn requests_and_answers_round_trip() {
        assert_eq!(SignRequest::decode(&SignRequest::encode(3, b"message")), Some((3, &b"message"[..])));
        assert_eq!(SignRequest::decode(b"abc"), None);
        let answers = [
            Ok(vec![1; 64]),
            Err(Trouble::Broken("a".into())),
            Err(Trouble::Fatal("b".into())),
            Err(Trouble::Rejected("c".into())),
        ];
        for answer in answers {
            assert_eq!(decode_answer(&encode_answer(&answer)), answer);
        }
        let refused = encode_refused_pin("d");
        assert_eq!(decode_answer(&refused), Err(Trouble::Fatal("d".into())));
        assert!(is_refused_pin(&refused) && !is_refused_pin(&[]));
        let huge = [&[BROKEN][..], &b"\x1b[2J\n".repeat(1 << 20)].concat();
        let Err(Trouble::Broken(text)) = decode_answer(&huge) else { panic!("a broken token") };
        assert!(text.len() <= ForeignText::MAX_BYTES && !text.contains(char::is_control), "{text}");
        for garbage in [&[][..], &[9], &[255, 1], &[LOGIN_BEGINS], &[LOGIN_ENDED, 1]] {
            assert!(matches!(ChildReport::decode(garbage), Err(Trouble::Broken(_))));
            assert!(matches!(decode_answer(garbage), Err(Trouble::Broken(_))));
        }
    }
}
