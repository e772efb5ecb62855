//! The smallest ABCI application that extends votes. It keeps no state, so one serves any number of nodes.
//!
//! On the socket goes `uvarint(length) ‖ Request` and back `uvarint(length) ‖ Response`, each a message with a
//! single field (CometBFT `abci/types.proto`; the same numbers in v0.38, v0.40 and v1).

use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use std::{
    io::{self, BufReader, Read, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

const ECHO: u32 = 1;
const PROCESS_PROPOSAL: u32 = 17;
const EXTEND_VOTE: u32 = 18;
const VERIFY_VOTE_EXTENSION: u32 = 19;
/// `status = 1`: the proposal or the extension is acceptable.
const ACCEPT: &[u8] = &[8, 1];
/// More than the 10 240 bytes that a node reads of a signer's answer: no signer may echo an extension.
const EXTENSION_BYTES: usize = 20 * 1024;
const HASH_BYTES: usize = 32;

/// Serves the application until the test program ends. Gives its address for `proxy_app`.
pub fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // An error is the end of a node.
            thread::spawn(|| answer_all(stream));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = vec![0; read_length(&mut requests)?];
        requests.read_exact(&mut request)?;
        stream.write_all(&delimited(&answer(&request)?))?;
    }
}

fn answer(request: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = request;
    let (field, _) = decode_key(&mut body)?;
    decode_varint(&mut body)?;
    let answer = match field {
        ECHO => body.into(),
        EXTEND_VOTE => message(1, &extension(body)),
        PROCESS_PROPOSAL | VERIFY_VOTE_EXTENSION => ACCEPT.into(),
        _ => Vec::new(),
    };
    // Every answer has the number after that of its request.
    Ok(message(field + 1, &answer))
}

/// An extension that depends on the block alone: the block's hash, the first field of the request, many times.
fn extension(request: &[u8]) -> Vec<u8> {
    request[2..2 + HASH_BYTES].repeat(EXTENSION_BYTES / HASH_BYTES)
}

/// A message with one length-delimited field.
fn message(field: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(field, WireType::LengthDelimited, &mut out);
    out.extend(delimited(value));
    out
}

fn delimited(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(value.len() as u64, &mut out);
    out.extend(value);
    out
}

fn read_length(stream: &mut impl Read) -> io::Result<usize> {
    let mut prefix = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        prefix.extend(byte);
        if byte[0] & 0x80 == 0 {
            let length = decode_varint(&mut prefix.as_slice())?;
            return Ok(usize::try_from(length).expect("CometBFT sends no such length"));
        }
    }
}
