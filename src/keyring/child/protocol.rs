//! The messages of signer, spawner and children, each in a frame of [`crate::process::frames`]. A malformed body ends the
//! connection.

use crate::{keyring::device::Trouble, process::foreign::ForeignText};

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

const OK: u8 = 0;
const BROKEN: u8 = 1;
const FATAL: u8 = 2;
const REJECTED: u8 = 3;

/// Encodes an answer: bytes or an error.
pub fn encode_answer(answer: &Result<Vec<u8>, Trouble>) -> Vec<u8> {
    let (tag, body) = match answer {
        Ok(body) => (OK, body.as_slice()),
        Err(Trouble::Broken(text) | Trouble::Temporary(text) | Trouble::WrongPassword(text)) => {
            (BROKEN, text.as_bytes())
        }
        Err(Trouble::Fatal(text)) => (FATAL, text.as_bytes()),
        Err(Trouble::Rejected(text)) => (REJECTED, text.as_bytes()),
        Err(trouble @ (Trouble::Busy | Trouble::Late)) => (BROKEN, trouble.text().as_bytes()),
    };
    [&[tag], body].concat()
}

/// Decodes an answer. A malformed one means that the child is broken.
pub fn decode_answer(body: &[u8]) -> Result<Vec<u8>, Trouble> {
    let Some((tag, rest)) = body.split_first() else {
        return Err(Trouble::Broken("the child process sent an empty answer".into()));
    };
    let text = || ForeignText::from_bytes(rest);
    match *tag {
        OK => Ok(rest.to_vec()),
        FATAL => Err(Trouble::Fatal(text())),
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
        let huge = [&[BROKEN][..], &b"\x1b[2J\n".repeat(1 << 20)].concat();
        let Err(Trouble::Broken(text)) = decode_answer(&huge) else { panic!("a broken token") };
        assert!(text.len() <= ForeignText::MAX_BYTES && !text.contains(char::is_control), "{text}");
        for garbage in [&[][..], &[9], &[255, 1]] {
            assert!(matches!(decode_answer(garbage), Err(Trouble::Broken(_))));
        }
    }
}
