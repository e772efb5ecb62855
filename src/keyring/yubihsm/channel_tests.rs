//! The channel against a session that another implementation, the client and the mock device of the `yubihsm` crate 0.42.1,
//! had with each other: the same challenge gives the same bytes, and the answers are read.

use super::*;
use subtle_encoding::hex;
use yubihsm::authentication::Key;

const PASSWORD: &[u8] = b"correct horse";
const AUTH_KEY: u16 = 4;
/// Create Session, Authenticate Session, then Sign EdDSA with keys 1 and 9, and Echo: each with its answer.
const SESSION: [(&str, &str); 5] = [
    ("03000a0004239f0c8d5e17d6c3", "83001101f76176362ba0b4c385ea4083c6a9f8cf"),
    ("04001101051d22e09c3a76fc9aee694a4d3fdecb", "840000"),
    (
        "050019018c2f08e06634e8180e15d5a4a9ffd5d93faa82cf55c48841",
        "85005901bf6afbe9597ee0f4b4c594248fcaa5e02728dd904e478c0d10724032b1a29cd7151ae150481008e59961466123aca8369104a3f693b744\
         65d4514a6baf73faf0fa9acc88a4a07b75a3e6bde5fc366cbea07039a5029f187f",
    ),
    (
        "05001901556e4b4e5499ceb1a1f789f09ca4d750567f76d198f478fd",
        "85001901aac22226e9c2b902babc7e4b1bfe3886f97c3a1b96fc957b",
    ),
    (
        "05002901f865d443b859504d2a32cd40463751a9946e0ace32dedf488bc01135e8b38e495cacfa2746a45c27",
        "850029012b24fd9593f086c4bafd6aaf370488b8bc2e30465d9081ee07ee775b108d4f26292336636e44c307",
    ),
];
const SIGNATURE: &str = "6f2e058cff199b70593e23c35aebd05a769b9f252d36ab80ddef5d73be6cf7eda538aa49d90e092e65bc5925c0b53337eae6ca\
                         9414942ae51c659ee9f95efe0a";
const SIGN_EDDSA: u8 = 0x6a;
const ECHO: u8 = 0x01;
/// "object not found"
const NOT_FOUND: u8 = 0x0b;

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn key(password: &[u8]) -> AuthKeyBytes {
    Key::derive_from_password(password).as_secret_slice().try_into().unwrap()
}

fn opening() -> Opening {
    Opening::new(bytes(SESSION[0].0)[5..].try_into().unwrap())
}

fn open() -> Channel {
    let (mut channel, _) = opening().finish(&key(PASSWORD), &bytes(SESSION[0].1)).ok().unwrap();
    channel.finish(&bytes(SESSION[1].1)).unwrap();
    channel
}

/// What is signed with key 1, as the body of a command.
fn vote(id: u8) -> Vec<u8> {
    [&[0, id][..], b"a vote"].concat()
}

#[test]
fn a_whole_session_is_byte_for_byte_that_of_another_implementation() {
    assert_eq!(opening().command(AUTH_KEY), bytes(SESSION[0].0));
    let (mut channel, proof) = opening().finish(&key(PASSWORD), &bytes(SESSION[0].1)).ok().unwrap();
    assert_eq!(proof, bytes(SESSION[1].0));
    channel.finish(&bytes(SESSION[1].1)).unwrap();

    assert_eq!(channel.seal(SIGN_EDDSA, &vote(1)).unwrap(), bytes(SESSION[2].0));
    assert_eq!(channel.open(SIGN_EDDSA, &bytes(SESSION[2].1)).unwrap()[..], bytes(SIGNATURE));
    // An error inside, after which the session goes on.
    assert_eq!(channel.seal(SIGN_EDDSA, &vote(9)).unwrap(), bytes(SESSION[3].0));
    assert_eq!(channel.open(SIGN_EDDSA, &bytes(SESSION[3].1)).err(), Some(ChannelError::Inside(NOT_FOUND)));
    assert_eq!(channel.seal(ECHO, &[7; 16]).unwrap(), bytes(SESSION[4].0));
    assert_eq!(channel.open(ECHO, &bytes(SESSION[4].1)).unwrap()[..], [7; 16]);
}

#[test]
fn a_wrong_password_is_seen_before_anything_is_sent() {
    let error = opening().finish(&key(b"incorrect horse"), &bytes(SESSION[0].1)).err();
    assert_eq!(error, Some(ChannelError::WrongKey));
}

#[test]
fn a_changed_answer_is_refused_wherever_it_was_changed() {
    let answer = bytes(SESSION[2].1);
    for at in 0..answer.len() {
        let mut channel = open();
        channel.seal(SIGN_EDDSA, &vote(1)).unwrap();
        let mut changed = answer.clone();
        changed[at] ^= 1;
        let error = channel.open(SIGN_EDDSA, &changed).err();
        assert!(matches!(error, Some(ChannelError::Mac | ChannelError::Malformed(_))), "byte {at}: {error:?}");
    }
    for length in 0..answer.len() {
        let mut channel = open();
        channel.seal(SIGN_EDDSA, &vote(1)).unwrap();
        assert!(channel.open(SIGN_EDDSA, &answer[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn the_answer_to_one_command_is_none_to_another() {
    let mut channel = open();
    channel.seal(SIGN_EDDSA, &vote(1)).unwrap();
    // A replayed answer has the MAC of another command.
    channel.open(SIGN_EDDSA, &bytes(SESSION[2].1)).unwrap();
    channel.seal(SIGN_EDDSA, &vote(9)).unwrap();
    assert_eq!(channel.open(SIGN_EDDSA, &bytes(SESSION[2].1)).err(), Some(ChannelError::Mac));
    let mut channel = open();
    channel.seal(SIGN_EDDSA, &vote(1)).unwrap();
    let error = channel.open(ECHO, &bytes(SESSION[2].1)).err();
    assert_eq!(error, Some(ChannelError::Malformed("the answer to another command")));
}

#[test]
fn an_error_in_the_clear_is_none_from_inside() {
    let mut channel = open();
    channel.seal(SIGN_EDDSA, &vote(1)).unwrap();
    assert_eq!(channel.open(SIGN_EDDSA, &[0x7f, 0, 1, 3]).err(), Some(ChannelError::Plain(3)));
    for odd in [&[][..], &[0x85], &[0x85, 0, 0], &[0x85, 0, 1, 1], &[0x7f, 0, 0], &[0x7f, 0, 2, 3, 3], &[0x85, 0, 9, 1]]
    {
        assert!(matches!(channel.open(SIGN_EDDSA, odd), Err(ChannelError::Malformed(_))), "{odd:?}");
    }
    let error = opening().finish(&key(PASSWORD), &[0x7f, 0, 1, 5]).err();
    assert_eq!(error, Some(ChannelError::Plain(5)));
    assert!(matches!(opening().finish(&key(PASSWORD), &[0x83, 0, 1, 1]), Err(ChannelError::Malformed(_))));
    assert!(matches!(open().finish(&[0x84, 0, 1, 1]), Err(ChannelError::Malformed(_))));
}

#[test]
fn a_command_that_was_not_sent_is_taken_back() {
    let mut channel = open();
    channel.seal(ECHO, &[1]).unwrap();
    channel.take_back();
    assert_eq!(channel.seal(SIGN_EDDSA, &vote(1)).unwrap(), bytes(SESSION[2].0));
}

#[test]
fn the_longest_message_that_the_device_signs_fits_and_no_session_lives_for_ever() {
    let mut channel = open();
    let longest = vec![0; 2 + super::super::MESSAGE_MAX_BYTES];
    assert!(channel.seal(SIGN_EDDSA, &longest).unwrap().len() <= MESSAGE_MAX_BYTES);
    let mut channel = open();
    assert!(matches!(channel.seal(SIGN_EDDSA, &[0; 2048]), Err(ChannelError::TooLong(2048))));
    channel.counter = MESSAGES_MAX;
    assert_eq!(channel.seal(ECHO, &[]).err(), Some(ChannelError::UsedUp));
}
