//! A peer that holds the strings of SecretConnection itself, so that it can seal what no honest peer would.

use super::mock_node::Connection;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::Aead as _};
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use sha2::Sha256;
use std::io;

/// Length of the first message of a handshake.
pub const GREETING_BYTES: usize = 35;
/// Length of a sealed frame.
pub const SEALED_BYTES: usize = 1044;
const GREETING_PREFIX: [u8; 3] = [0x22, 0x0a, 0x20];
const FRAME_BYTES: usize = 1028;

/// The first message of a handshake with this ephemeral key.
pub fn greeting(key: [u8; 32]) -> Vec<u8> {
    [&GREETING_PREFIX[..], &key].concat()
}

/// A connection on which ephemeral keys were exchanged, and nothing authenticated yet.
pub struct Puppet {
    cipher: ChaCha20Poly1305,
    counter: u64,
}

impl Puppet {
    /// Exchanges the keys. The peer's own authentication message is left unread.
    pub fn greet(connection: &mut Connection) -> io::Result<Self> {
        // An Ed25519 key is an X25519 key too: the same curve in other coordinates.
        let own = SigningKey::from_bytes(&[3; 32]);
        let public = own.verifying_key().to_montgomery();
        connection.write_plain(&greeting(public.0))?;
        let theirs = connection.read_plain(GREETING_BYTES)?;
        let mut point = public;
        point.0.copy_from_slice(&theirs[GREETING_PREFIX.len()..]);
        let shared = point * own.to_scalar();

        let mut keys = [0; 96];
        let info = b"TENDERMINT_SECRET_CONNECTION_KEY_AND_CHALLENGE_GEN";
        Hkdf::<Sha256>::new(None, &shared.0).expand(info, &mut keys).expect("96 bytes can be derived");
        // The peer with the lower key receives under the first key and sends under the second.
        let send = if public.0 < point.0 { &keys[32..64] } else { &keys[..32] };
        Ok(Self { cipher: ChaCha20Poly1305::new_from_slice(send).expect("a key has 32 bytes"), counter: 0 })
    }

    /// Seals the next frame: `chunk`, said to be `length` bytes long.
    pub fn seal(&mut self, length: u32, chunk: &[u8]) -> Vec<u8> {
        let mut frame = [&length.to_le_bytes(), chunk].concat();
        frame.resize(FRAME_BYTES, 0);
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        self.counter += 1;
        self.cipher.encrypt(&nonce.into(), frame.as_slice()).expect("a frame can be sealed")
    }
}

/// An authentication message: the key of all zeros and the signature of all sevens.
pub fn authentication() -> Vec<u8> {
    let mut message = vec![0x66, 0x0a, 0x22, 0x0a, 0x20];
    message.extend([0; 32]);
    message.extend([0x12, 0x40]);
    message.extend([7; 64]);
    message
}
