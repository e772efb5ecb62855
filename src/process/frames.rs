//! Frames between Highwater's own processes over socket pairs: a length and a body.
//!
//! Both ends run the same binary, so there is no version and no negotiation. A length over the limit ends the
//! connection.

use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// Largest body: a request with the longest vote extension that a node can send, and its key.
pub const BODY_MAX_BYTES: usize = 4 * 1024 * 1024 + 1024;

/// Longest answer of a process whose answers are short.
const SHORT_MAX_BYTES: usize = 64 * 1024;

/// Writes a frame with one call.
pub fn write_frame(stream: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= BODY_MAX_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    // Wiped: a frame can contain a PIN.
    let mut frame = Zeroizing::new(Vec::with_capacity(4 + body.len()));
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(body);
    stream.write_all(&frame)
}

/// Reads a frame. The end of the stream is an error of kind `UnexpectedEof`, even before the first byte.
pub fn read_frame(stream: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    read_frame_within(stream, BODY_MAX_BYTES)
}

fn read_frame_within(stream: &mut impl Read, max_bytes: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(ended)?;
    let length = usize::try_from(u32::from_le_bytes(length)).expect("a u32 fits a usize on Linux");
    if length > max_bytes {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut body = Zeroizing::new(vec![0; length]);
    stream.read_exact(&mut body).map_err(ended)?;
    Ok(body)
}

fn ended(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        io::Error::new(error.kind(), "the process at the other end has ended")
    } else {
        error
    }
}

/// Writes a value as JSON in a frame.
pub fn write_json(stream: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    write_frame(stream, &Zeroizing::new(serde_json::to_vec(value)?))
}

/// Reads a value from JSON in a frame.
pub fn read_json<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_frame(stream)?)?)
}

/// Like [`read_json`], for short answers. They may come from a process that reads from the network.
pub fn read_short_json<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_frame_within(stream, SHORT_MAX_BYTES)?)?)
}

/// Asks the only question.
pub fn ask(stream: &mut impl Write) -> io::Result<()> {
    write_frame(stream, &[])
}

/// Waits for the only question. Returns false at the end of the stream.
pub fn is_asked(stream: &mut impl Read) -> io::Result<bool> {
    match read_frame_within(stream, 0) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

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
    fn a_short_answer_is_refused_above_its_own_limit_and_a_question_has_no_body() {
        let mut stream = Vec::new();
        write_json(&mut stream, &"1".repeat(SHORT_MAX_BYTES)).unwrap();
        assert!(read_json::<String>(&mut stream.as_slice()).is_ok());
        let error = read_short_json::<String>(&mut stream.as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(is_asked(&mut stream.as_slice()).is_err());
        let mut stream = Vec::new();
        ask(&mut stream).unwrap();
        let mut stream = Cursor::new(stream);
        assert!(is_asked(&mut stream).unwrap());
        assert!(!is_asked(&mut stream).unwrap());
    }
}
