//! The messages of signer, spawner and children over their socket pairs: frames of a length and a body.
//!
//! Both ends are the same program, started together, so there is no version and no negotiation. A length over the limit
//! or a malformed body ends the connection.

use crate::{keyring::device::Trouble, record::foreign::ForeignText};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// The largest body: a request with the longest vote extension that a node can send, and the key's index.
pub const BODY_MAX_BYTES: usize = 4 * 1024 * 1024 + 1024;

/// Writes a frame in one write.
pub fn write_frame(stream: &mut impl Write, body: &[u8]) -> io::Result<()> {
    if body.len() > BODY_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
    }
    let length = u32::try_from(body.len()).expect("the limit fits a u32");
    // Wiped: a frame can hold a PIN.
    let mut frame = Zeroizing::new(Vec::with_capacity(4 + body.len()));
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame)
}

/// Reads a frame. An end before its first byte is an error of kind `UnexpectedEof`, like any other end.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).expect("a u32 fits a usize on Linux");
    if length > BODY_MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut body = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Writes a value as JSON in a frame.
pub fn write_json(stream: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    write_frame(stream, &Zeroizing::new(serde_json::to_vec(value)?))
}

/// Reads a value from JSON in a frame.
pub fn read_json<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_frame(stream)?)?)
}

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
        Err(Trouble::Broken(text)) => (BROKEN, text.as_bytes()),
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
    use std::io::Cursor;

    #[test]
    fn a_frame_has_room_for_the_longest_request_of_a_node() {
        assert!(BODY_MAX_BYTES >= highwater_core::privval::frame::REQUEST_MAX_BYTES + 4);
    }

    #[test]
    fn frames_round_trip_and_end_cleanly() {
        let mut stream = Vec::new();
        for length in [0, 1, 1000, 100_000] {
            write_frame(&mut stream, &vec![7; length]).unwrap();
        }
        let mut stream = Cursor::new(stream);
        for length in [0, 1, 1000, 100_000] {
            assert_eq!(*read_frame(&mut stream).unwrap(), vec![7; length]);
        }
        assert_eq!(read_frame(&mut stream).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_over_the_limit_is_refused_on_both_sides() {
        let mut stream = Vec::new();
        assert!(write_frame(&mut stream, &vec![0; BODY_MAX_BYTES + 1]).is_err());
        assert!(stream.is_empty());
        let error = read_frame(&mut Cursor::new(u32::MAX.to_le_bytes())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
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
