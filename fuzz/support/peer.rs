//! The other side of a secret connection, written from its specification (CometBFT `p2p/conn/secret_connection.go`) and
//! without tendermint-p2p: it can do everything right, and it can seal what no honest peer would.

use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, aead::Aead as _};
use ed25519_dalek::{Signer as _, SigningKey};
use hkdf::Hkdf;
use merlin::Transcript;
use sha2::Sha256;
use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

/// The most that a frame carries.
pub const CHUNK_MAX_BYTES: usize = 1024;
const FRAME_BYTES: usize = 4 + CHUNK_MAX_BYTES;
const GREETING_PREFIX: [u8; 3] = [0x22, 0x0a, 0x20];

/// A peer that has exchanged ephemeral keys.
pub struct Peer<'a> {
    stream: &'a TcpStream,
    cipher: ChaCha20Poly1305,
    counter: u64,
    challenge: [u8; 32],
}

impl<'a> Peer<'a> {
    /// Exchanges ephemeral keys over `stream`.
    pub fn greet(mut stream: &'a TcpStream) -> io::Result<Self> {
        // An Ed25519 key is an X25519 key too: the same curve in other coordinates.
        let own = SigningKey::from_bytes(&[3; 32]);
        let ours = own.verifying_key().to_montgomery();
        stream.write_all(&[&GREETING_PREFIX[..], &ours.0].concat())?;
        let mut greeting = [0; 35];
        stream.read_exact(&mut greeting)?;
        let mut theirs = ours;
        theirs.0.copy_from_slice(&greeting[3..]);
        let secret = theirs * own.to_scalar();

        let (low, high) = if ours.0 < theirs.0 { (&ours.0, &theirs.0) } else { (&theirs.0, &ours.0) };
        let mut transcript = Transcript::new(b"TENDERMINT_SECRET_CONNECTION_TRANSCRIPT_HASH");
        transcript.append_message(b"EPHEMERAL_LOWER_PUBLIC_KEY", low);
        transcript.append_message(b"EPHEMERAL_UPPER_PUBLIC_KEY", high);
        transcript.append_message(b"DH_SECRET", &secret.0);
        let mut challenge = [0; 32];
        transcript.challenge_bytes(b"SECRET_CONNECTION_MAC", &mut challenge);

        let mut keys = [0; 96];
        let info = b"TENDERMINT_SECRET_CONNECTION_KEY_AND_CHALLENGE_GEN";
        Hkdf::<Sha256>::new(None, &secret.0).expand(info, &mut keys).expect("96 bytes can be derived");
        // The peer with the lower key receives under the first key and sends under the second.
        let send = if ours.0 < theirs.0 { &keys[32..64] } else { &keys[..32] };
        let cipher = ChaCha20Poly1305::new_from_slice(send).expect("a key has 32 bytes");
        Ok(Self { stream, cipher, counter: 0, challenge })
    }

    /// Proves to be `identity`.
    pub fn authenticate(&mut self, identity: &SigningKey) -> io::Result<()> {
        let mut message = vec![0x66, 0x0a, 0x22, 0x0a, 0x20];
        message.extend(identity.verifying_key().as_bytes());
        message.extend([0x12, 0x40]);
        message.extend(identity.sign(&self.challenge).to_bytes());
        let length = u32::try_from(message.len()).expect("a message is short");
        self.send(&frame(length, &message), false)
    }

    /// Seals the next frame and sends it, with a broken seal if told so.
    pub fn send(&mut self, frame: &[u8; FRAME_BYTES], broken: bool) -> io::Result<()> {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        self.counter += 1;
        let mut sealed = self.cipher.encrypt(&nonce.into(), &frame[..]).expect("a frame can be sealed");
        sealed[FRAME_BYTES] ^= u8::from(broken);
        self.stream.write_all(&sealed)
    }
}

/// A frame that holds `chunk` and says that it has `length` bytes.
pub fn frame(length: u32, chunk: &[u8]) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..4 + chunk.len()].copy_from_slice(chunk);
    frame
}
