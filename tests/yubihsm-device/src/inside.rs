//! A look inside a session, for what the mock device cannot do: refuse a command, and keep a log.
//!
//! The device knows the password, so it can follow a session of the mock from outside. As long as every command goes on to
//! the mock, so do its bytes, untouched: the mock alone is what a client speaks with. Once a command was answered here,
//! the two sides have counted differently, and each message is sealed again for the other side.

use aes::{
    Aes128,
    cipher::{
        BlockDecryptMut as _, BlockEncrypt as _, BlockEncryptMut as _, InnerIvInit as _, KeyInit as _,
        block_padding::Iso7816, generic_array::GenericArray,
    },
};
use cmac::{Cmac, Mac};

const BLOCK: usize = 16;
const MAC: usize = 8;
/// Code, length and session.
const HEAD: usize = 4;

type Block = [u8; BLOCK];

/// The keys of a session, and how far both sides are.
pub struct Inside {
    encryption: Block,
    mac: Block,
    answer_mac: Block,
    client: Side,
    mock: Side,
}

#[derive(Clone, Copy, PartialEq)]
struct Side {
    chain: Block,
    counter: u128,
}

impl Inside {
    /// Of a session that the mock has just made. `None` if the mock made it with another key.
    pub fn new(key: &[u8], command: &[u8], answer: &[u8]) -> Option<Self> {
        let (host, card) = (command.get(5..13)?, answer.get(4..12)?);
        let context = [host, card].concat();
        let derive = |key: &[u8], constant: u8| -> Option<Block> {
            let input = [&[0; 11][..], &[constant, 0, 0, 128, 1], &context].concat();
            Some(tag(key.try_into().ok()?, &[&input]))
        };
        let (encryption, mac) = key.split_at(BLOCK);
        let side = Side { chain: [0; BLOCK], counter: 0 };
        let cryptogram = tag(&derive(mac, 6)?, &[&[0; 13], &[0, 64, 1], &context]);
        if answer.get(12..20)? != &cryptogram[..8] {
            return None;
        }
        Some(Self {
            encryption: derive(encryption, 4)?,
            mac: derive(mac, 6)?,
            answer_mac: derive(mac, 7)?,
            client: side,
            mock: side,
        })
    }

    /// Follows the message with which a client proves that it knows the key.
    pub fn authenticated(&mut self, command: &[u8]) {
        let chain = tag(&self.mac, &[&[0; BLOCK], &command[..command.len().saturating_sub(MAC)]]);
        self.client = Side { chain, counter: 1 };
        self.mock = self.client;
    }

    /// The command in a client's message. `None` if its MAC does not fit.
    pub fn command(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let (covered, mac) = message.split_last_chunk::<MAC>()?;
        let chain = tag(&self.mac, &[&self.client.chain, covered]);
        if chain[..MAC] != mac[..] {
            return None;
        }
        self.client.chain = chain;
        self.decrypt(covered.get(HEAD..)?, self.client.counter)
    }

    /// Has the mock do a client's message, whose command is `command`, and returns the answer for the client.
    pub fn pass<E>(
        &mut self,
        message: &[u8],
        command: &[u8],
        ask: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<(Vec<u8>, Vec<u8>), E> {
        let sealed = self.encrypt(command, self.mock.counter);
        let bytes = with_mac(&self.mac, &self.mock.chain, message[0], message[3], &sealed);
        self.mock.chain = tag(&self.mac, &[&self.mock.chain, &bytes[..bytes.len() - MAC]]);
        assert!(self.client != self.mock || bytes == message, "what nothing changed goes on untouched");
        let answer = ask(&bytes)?;
        let inner = answer.get(HEAD..answer.len() - MAC).and_then(|body| self.decrypt(body, self.mock.counter));
        let same = self.client == self.mock;
        self.mock.counter += 1;
        let inner = inner.unwrap_or_default();
        if same {
            self.client.counter += 1;
            return Ok((answer, inner));
        }
        Ok((self.answer(message[3], &inner), inner))
    }

    /// Seals an answer for the client, to the command that was read last.
    pub fn answer(&mut self, session: u8, inner: &[u8]) -> Vec<u8> {
        let sealed = self.encrypt(inner, self.client.counter);
        self.client.counter += 1;
        with_mac(&self.answer_mac, &self.client.chain, 0x85, session, &sealed)
    }

    fn cipher(&self, counter: u128) -> (Aes128, GenericArray<u8, aes::cipher::consts::U16>) {
        let cipher = Aes128::new(&self.encryption.into());
        let mut vector = GenericArray::from(counter.to_be_bytes());
        cipher.encrypt_block(&mut vector);
        (cipher, vector)
    }

    fn encrypt(&self, inner: &[u8], counter: u128) -> Vec<u8> {
        let (cipher, vector) = self.cipher(counter);
        let mut bytes = [inner, &[0; BLOCK]].concat();
        let cipher = cbc::Encryptor::<Aes128>::inner_iv_init(cipher, &vector);
        cipher.encrypt_padded_mut::<Iso7816>(&mut bytes, inner.len()).expect("there is room").to_vec()
    }

    fn decrypt(&self, sealed: &[u8], counter: u128) -> Option<Vec<u8>> {
        let (cipher, vector) = self.cipher(counter);
        let mut bytes = sealed.to_vec();
        let cipher = cbc::Decryptor::<Aes128>::inner_iv_init(cipher, &vector);
        Some(cipher.decrypt_padded_mut::<Iso7816>(&mut bytes).ok()?.to_vec())
    }
}

fn with_mac(key: &Block, chain: &Block, code: u8, session: u8, sealed: &[u8]) -> Vec<u8> {
    let length = u16::try_from(1 + sealed.len() + MAC).expect("a device's message").to_be_bytes();
    let mut bytes = [&[code, length[0], length[1], session], sealed].concat();
    let mac = tag(key, &[chain, &bytes]);
    bytes.extend_from_slice(&mac[..MAC]);
    bytes
}

fn tag(key: &Block, parts: &[&[u8]]) -> Block {
    let mut mac = <Cmac<Aes128> as Mac>::new(key.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}
