//! The secure channel of a YubiHSM 2: SCP03 in the form that the device speaks it. Turns commands into bytes and answers
//! back into what they hold; does no I/O.
//!
//! | message | bytes |
//! | --- | --- |
//! | every message | code, length (2 bytes), body; the code of an answer has bit 7, an error has the code 0x7f |
//! | Create Session | authentication key (2), host challenge (8). Answer: session, card challenge (8), card cryptogram (8) |
//! | Authenticate Session | session, host cryptogram (8), MAC (8). The answer is empty |
//! | Session Message | session, a whole message under AES-CBC, MAC (8). So is the answer |
//!
//! The session's keys are derived from the authentication key and both challenges with AES-CMAC as the pseudorandom
//! function (NIST SP 800-108). The MAC of a command covers the whole MAC of the command before it, so that none can be
//! left out or repeated; that of an answer covers the MAC of its command.

use aes::{
    Aes128,
    cipher::{
        BlockDecryptMut as _, BlockEncrypt as _, BlockEncryptMut as _, InnerIvInit as _, KeyInit as _,
        block_padding::Iso7816, generic_array::GenericArray,
    },
};
use cmac::{Cmac, Mac};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub(super) const CREATE_SESSION: u8 = 0x03;
const AUTHENTICATE_SESSION: u8 = 0x04;
const SESSION_MESSAGE: u8 = 0x05;
/// The bit that the code of an answer adds to the code of the command.
const ANSWER: u8 = 0x80;
/// The code of an answer that is an error.
const ERROR: u8 = 0x7f;

const BLOCK_BYTES: usize = 16;
const MAC_BYTES: usize = 8;
pub(super) const CHALLENGE_BYTES: usize = 8;
const CRYPTOGRAM_BYTES: usize = 8;
/// Code and length.
const HEADER_BYTES: usize = 3;
/// The longest message that a device takes or sends (Yubico, YubiHSM 2 commands).
pub(super) const MESSAGE_MAX_BYTES: usize = 2048;
/// How many messages one session may carry: with MACs of 8 bytes there must not be too many under one key.
const MESSAGES_MAX: u64 = 1 << 20;

/// The static keys of an authentication key: one to encrypt, one for MACs.
pub(super) type AuthKeyBytes = [u8; 2 * BLOCK_BYTES];

/// Why an answer is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChannelError {
    /// The device refused, in the clear. It knows no such session, or did not accept the message.
    Plain(u8),
    /// It refused inside the channel: the session is good.
    Inside(u8),
    /// The cryptogram of the device does not fit: the password or the key id is wrong.
    WrongKey,
    /// The MAC of the answer does not fit.
    Mac,
    /// The answer has a form that no YubiHSM sends.
    Malformed(&'static str),
    /// The command is longer than a device takes.
    TooLong(usize),
    /// The session has carried as many messages as it may.
    UsedUp,
}

/// A channel that waits for the device's half of the key.
pub(super) struct Opening {
    host_challenge: [u8; CHALLENGE_BYTES],
}

/// The keys and counters of one session. Wiped when dropped.
pub(super) struct Channel {
    id: u8,
    encryption: Zeroizing<[u8; BLOCK_BYTES]>,
    mac: Zeroizing<[u8; BLOCK_BYTES]>,
    answer_mac: Zeroizing<[u8; BLOCK_BYTES]>,
    /// The whole MAC of the last command, and of the one before it.
    chain: [u8; BLOCK_BYTES],
    chain_before: [u8; BLOCK_BYTES],
    /// Of messages since the channel was opened. The initial vectors of the encryption are made of it.
    counter: u64,
}

impl Opening {
    pub(super) fn new(host_challenge: [u8; CHALLENGE_BYTES]) -> Self {
        Self { host_challenge }
    }

    /// The command that asks for a session.
    pub(super) fn command(&self, auth_key: u16) -> Vec<u8> {
        message(CREATE_SESSION, &[&auth_key.to_be_bytes()[..], &self.host_challenge].concat())
    }

    /// Takes the device's half of the key. Returns the channel, and the command that proves our half.
    pub(super) fn finish(&self, key: &AuthKeyBytes, answer: &[u8]) -> Result<(Channel, Vec<u8>), ChannelError> {
        let body = answer_body(CREATE_SESSION, answer)?;
        let body: &[u8; 1 + CHALLENGE_BYTES + CRYPTOGRAM_BYTES] =
            body.try_into().map_err(|_| ChannelError::Malformed("a session of another length"))?;
        let (challenge, cryptogram) = body[1..].split_at(CHALLENGE_BYTES);
        let context = [&self.host_challenge[..], challenge].concat();
        let (encryption, mac) = key.split_at(BLOCK_BYTES);
        let mut channel = Channel {
            id: body[0],
            encryption: derive(encryption, 4, &context),
            mac: derive(mac, 6, &context),
            answer_mac: derive(mac, 7, &context),
            chain: [0; BLOCK_BYTES],
            chain_before: [0; BLOCK_BYTES],
            counter: 0,
        };
        let expected: Zeroizing<[u8; CRYPTOGRAM_BYTES]> = derive(&channel.mac[..], 0, &context);
        if !bool::from(expected[..].ct_eq(cryptogram)) {
            return Err(ChannelError::WrongKey);
        }
        let ours: Zeroizing<[u8; CRYPTOGRAM_BYTES]> = derive(&channel.mac[..], 1, &context);
        let command = channel.with_mac(AUTHENTICATE_SESSION, &ours[..]);
        Ok((channel, command))
    }
}

impl Channel {
    /// Reads the device's consent to the proof of our half.
    pub(super) fn finish(&mut self, answer: &[u8]) -> Result<(), ChannelError> {
        if !answer_body(AUTHENTICATE_SESSION, answer)?.is_empty() {
            return Err(ChannelError::Malformed("an answer to a proof that is not empty"));
        }
        self.counter = 1;
        Ok(())
    }

    /// Encrypts a command. It must be sent, and its answer opened, before the next one is sealed.
    pub(super) fn seal(&mut self, code: u8, body: &[u8]) -> Result<Vec<u8>, ChannelError> {
        if self.counter >= MESSAGES_MAX {
            return Err(ChannelError::UsedUp);
        }
        let inner_bytes = HEADER_BYTES + body.len();
        let padded_bytes = (inner_bytes / BLOCK_BYTES + 1) * BLOCK_BYTES;
        if HEADER_BYTES + 1 + padded_bytes + MAC_BYTES > MESSAGE_MAX_BYTES {
            return Err(ChannelError::TooLong(body.len()));
        }
        // It may hold a secret key.
        let mut inner = Zeroizing::new(message(code, body));
        inner.resize(padded_bytes, 0);
        let cipher = cbc::Encryptor::<Aes128>::inner_iv_init(self.cipher(), &self.initial_vector());
        let sealed = cipher.encrypt_padded_mut::<Iso7816>(&mut inner, inner_bytes);
        let sealed = sealed.expect("there is room for the padding").to_vec();
        Ok(self.with_mac(SESSION_MESSAGE, &sealed))
    }

    /// Decrypts the answer to the last command, and returns its body.
    pub(super) fn open(&mut self, code: u8, answer: &[u8]) -> Result<Zeroizing<Vec<u8>>, ChannelError> {
        let body = answer_body(SESSION_MESSAGE, answer)?;
        let (sealed, mac) =
            body.split_last_chunk::<MAC_BYTES>().ok_or(ChannelError::Malformed("a message without a MAC"))?;
        let covered = &answer[..answer.len() - MAC_BYTES];
        let expected = cmac(&self.answer_mac, &[&self.chain, covered]);
        if !bool::from(expected[..MAC_BYTES].ct_eq(mac)) {
            return Err(ChannelError::Mac);
        }
        let (id, sealed) = sealed.split_first().ok_or(ChannelError::Malformed("a message without a session"))?;
        if *id != self.id {
            return Err(ChannelError::Malformed("a message of another session"));
        }
        let mut inner = Zeroizing::new(sealed.to_vec());
        let cipher = cbc::Decryptor::<Aes128>::inner_iv_init(self.cipher(), &self.initial_vector());
        let opened = cipher.decrypt_padded_mut::<Iso7816>(&mut inner);
        let opened = opened.map_err(|_| ChannelError::Malformed("a message with a wrong padding"))?;
        self.counter += 1;
        match answer_body(code, opened) {
            Ok(body) => Ok(Zeroizing::new(body.to_vec())),
            Err(ChannelError::Plain(error)) => Err(ChannelError::Inside(error)),
            Err(other) => Err(other),
        }
    }

    /// Forgets the last sealed command, which the device never got.
    pub(super) fn take_back(&mut self) {
        self.chain = self.chain_before;
    }

    /// Counts an answer that will not come, so that another command can follow.
    pub(super) fn skip_answer(&mut self) {
        self.counter += 1;
    }

    /// The message with the session in front of the body and the MAC behind it.
    fn with_mac(&mut self, code: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = message(code, &[&[self.id], body, &[0; MAC_BYTES]].concat());
        let end = bytes.len() - MAC_BYTES;
        self.chain_before = self.chain;
        self.chain = cmac(&self.mac, &[&self.chain, &bytes[..end]]);
        bytes[end..].copy_from_slice(&self.chain[..MAC_BYTES]);
        bytes
    }

    fn cipher(&self) -> Aes128 {
        Aes128::new(GenericArray::from_slice(&self.encryption[..]))
    }

    /// The counter, encrypted.
    fn initial_vector(&self) -> GenericArray<u8, aes::cipher::consts::U16> {
        let mut block = GenericArray::from(u128::from(self.counter).to_be_bytes());
        self.cipher().encrypt_block(&mut block);
        block
    }
}

/// A message in the clear. Longer ones than a device takes are cut off by nothing here: [`Channel::seal`] refuses them.
pub(super) fn message(code: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len() + BLOCK_BYTES);
    bytes.push(code);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The body of the answer to a command, in the clear.
pub(super) fn answer_body(code: u8, answer: &[u8]) -> Result<&[u8], ChannelError> {
    let Some(([answered, length @ ..], body)) = answer.split_first_chunk::<HEADER_BYTES>() else {
        return Err(ChannelError::Malformed("an answer that is too short"));
    };
    if usize::from(u16::from_be_bytes(*length)) != body.len() {
        return Err(ChannelError::Malformed("an answer of another length than it says"));
    }
    match (*answered, body) {
        (ERROR, [error]) => Err(ChannelError::Plain(*error)),
        (answered, body) if answered == code | ANSWER => Ok(body),
        _ => Err(ChannelError::Malformed("the answer to another command")),
    }
}

/// Derives key material (NIST SP 800-108 in counter mode, as SCP03 has it): `N` is at most one block.
fn derive<const N: usize>(key: &[u8], constant: u8, context: &[u8]) -> Zeroizing<[u8; N]> {
    let bits = u16::try_from(8 * N).expect("one block at most");
    let key: &[u8; BLOCK_BYTES] = key.try_into().expect("half of an authentication key");
    let block = Zeroizing::new(cmac(key, &[&[0; 11], &[constant, 0], &bits.to_be_bytes(), &[1], context]));
    let mut derived = Zeroizing::new([0; N]);
    derived.copy_from_slice(&block[..N]);
    derived
}

fn cmac(key: &[u8; BLOCK_BYTES], parts: &[&[u8]]) -> [u8; BLOCK_BYTES] {
    let mut mac = <Cmac<Aes128> as Mac>::new(GenericArray::from_slice(key));
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
