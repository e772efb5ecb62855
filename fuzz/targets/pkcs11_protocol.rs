//! A stream of anything between signer, spawner and child: frames, requests and answers read back as they were
//! written, and a stream that ends early is an error.
#![no_main]

use highwater::{keyring::{device::Trouble, child::protocol::{SignRequest, decode_answer, encode_answer}}, process::frames::{BODY_MAX_BYTES, read_frame, read_json, write_frame, write_json}, config::pkcs11::spec::TokenSpec};
use libfuzzer_sys::fuzz_target;
use std::io;

fn check_body(body: &[u8]) {
    match SignRequest::decode(body) {
        Some((key, message)) => assert_eq!(SignRequest::encode(key, message), body),
        None => assert!(body.len() < 4),
    }
    let answer = decode_answer(body);
    assert_eq!(decode_answer(&encode_answer(&answer)), answer);
    match answer {
        Ok(bytes) => assert_eq!([&[0], bytes.as_slice()].concat(), body),
        Err(
            Trouble::Busy | Trouble::Late | Trouble::LoggingIn(_) | Trouble::Temporary(_) | Trouble::Unreached(_) | Trouble::WrongPassword(_),
        ) => panic!("no child says that"),
        Err(Trouble::Broken(_) | Trouble::Fatal(_) | Trouble::Rejected(_)) => {}
    }
}

fn check_json(frame: &[u8]) {
    let Ok(spec) = read_json::<TokenSpec>(&mut &*frame) else { return };
    let mut written = Vec::new();
    write_json(&mut written, &spec).expect("what fits a frame fits one again");
    assert_eq!(read_json::<TokenSpec>(&mut written.as_slice()).expect("our own form"), spec);
}

fuzz_target!(|stream: &[u8]| {
    let mut rest = stream;
    loop {
        let begin = rest;
        match read_frame(&mut rest) {
            Ok(body) => {
                let mut written = Vec::new();
                write_frame(&mut written, &body).expect("what fits a frame fits one again");
                assert_eq!(written, begin[..begin.len() - rest.len()]);
                check_body(&body);
                check_json(&written);
            }
            Err(error) => {
                let announced = begin.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
                let too_long = announced.is_some_and(|length| length > BODY_MAX_BYTES);
                let expected = if too_long { io::ErrorKind::InvalidData } else { io::ErrorKind::UnexpectedEof };
                return assert_eq!(error.kind(), expected);
            }
        }
    }
});
