//! A stream of anything: lengths are read as protobuf reads them and never above the limit; whatever decodes as a
//! message encodes to one that decodes to the same and asks for the same.
#![no_main]

use highwater_core::{consensus::ChainId, privval::{Request, frame::{FrameError, LengthPrefix, REQUEST_MAX_BYTES}, message::Message}};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

/// The length in front of `stream` and what follows it; `None` if the prefix is cut short.
fn prefix<'a>(stream: &mut &'a [u8]) -> Result<Option<usize>, FrameError> {
    let mut prefix = LengthPrefix::default();
    while let Some((byte, rest)) = stream.split_first() {
        *stream = rest;
        if let Some(length) = prefix.push(*byte)? {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

fn check(body: &[u8]) {
    let Ok(message) = Message::decode(body) else { return };
    let mut framed = Vec::new();
    message.encode_frame(&mut framed);
    let mut encoded = framed.as_slice();
    assert_eq!(prefix(&mut encoded), Ok(Some(message.encoded_len())));
    assert_eq!(Message::decode(encoded).as_ref(), Ok(&message));
    // Unknown fields are gone from `encoded`, and meant nothing.
    let chain = ChainId::new("test-chain").expect("a good chain id");
    let request = |body: &[u8]| format!("{:?}", Request::parse(body, &chain));
    assert_eq!(request(encoded), request(body));
}

fuzz_target!(|stream: &[u8]| {
    let mut rest = stream;
    loop {
        let mut other = rest;
        let expected = prost::encoding::decode_varint(&mut other);
        match prefix(&mut rest) {
            Ok(Some(length)) => {
                assert_eq!((expected, other), (Ok(length as u64), rest));
                let Some((body, after)) = rest.split_at_checked(length) else { return check(rest) };
                check(body);
                rest = after;
            }
            Err(FrameError::TooLong { bytes }) => {
                assert_eq!(expected, Ok(bytes));
                return assert!(bytes > REQUEST_MAX_BYTES as u64);
            }
            Ok(None) | Err(FrameError::PrefixOverflow) => return assert!(expected.is_err()),
        }
    }
});
