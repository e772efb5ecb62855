//! The identity key: identifies the signer on a SecretConnection. It signs handshakes, never blocks.

use super::{
    KeyError, Secret,
    key_file::{self, random},
    softsign::{
        self, SecretKey,
        encoding::{self, EncodingError, Form},
    },
};
use crate::process::sandbox::memory;
use highwater_core::consensus::PeerId;
use highwater_core::consensus::PublicKey;
use std::path::Path;
use subtle::ConstantTimeEq as _;

/// An Ed25519 identity key, kept as its seed (the `secret_key` of a `[[validator]]`).
pub struct IdentityKey {
    seed: Secret<32>,
}

impl IdentityKey {
    /// Reads a tmkms identity file: base64 of a 32-byte seed.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let content = key_file::read(path)?;
        Self::decode(&content).map_err(|reason| KeyError::Malformed { path: path.into(), reason })
    }

    /// Makes a new identity and writes it to `path`, where no file may exist.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let seed = random()?;
        key_file::write(path, &encoding::to_base64(&seed[..]))?;
        Ok(Self { seed })
    }

    /// The public key, which a node can pin.
    pub fn public_key(&self) -> PublicKey {
        softsign::public_of_seed(&self.seed).into()
    }

    /// Whether `key` is the same secret, in whatever form and for whatever algorithm.
    pub fn is_secret_of(&self, key: &SecretKey) -> bool {
        let same_bytes = key.for_devices().is_some_and(|bytes| bool::from(bytes.ct_eq(&self.seed[..])));
        same_bytes || key.public_key() == self.public_key()
    }

    /// Locks the seed into memory, to keep it out of swap and core dumps. Returns whether that succeeded.
    pub fn lock_secrets(&self) -> bool {
        memory::lock(self.seed.as_ref())
    }

    /// The signer's own peer id, as the node logs it.
    pub fn peer_id(&self) -> PeerId {
        PeerId(self.public_key().address())
    }

    /// The key in the type that tendermint-p2p takes, by value.
    ///
    /// This is the only copy of a secret that is not wiped: neither ed25519-consensus nor tendermint-p2p does so. It
    /// signs only handshakes. Its `Debug` prints the seed: pass it on at once.
    pub fn to_consensus_key(&self) -> ed25519_consensus::SigningKey {
        ed25519_consensus::SigningKey::from(**self.seed)
    }

    fn decode(content: &[u8]) -> Result<Self, EncodingError> {
        let form = Form::of(content);
        if form != Form::Base64 {
            return Err(EncodingError::IdentityForm { form });
        }
        let bytes = encoding::from_base64(content)?;
        match bytes.len() {
            64 | 96 => Err(EncodingError::IdentityNotSeed { bytes: bytes.len() }),
            _ => encoding::secret(&bytes).map(|seed| Self { seed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::consensus::{KeyType, Signature};

    const SEED: [u8; 32] = [0x42; 32];

    fn identity(content: &[u8]) -> Result<IdentityKey, KeyError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms-identity.key");
        key_file::write(&path, content).unwrap();
        IdentityKey::load(&path)
    }

    // The id of the node key with this seed, as CometBFT computes it.
    #[test]
    fn the_peer_id_is_that_of_cometbft() {
        for end in ["", "\n", " \r\n"] {
            let content = [&encoding::to_base64(&SEED)[..], end.as_bytes()].concat();
            let key = identity(&content).ok().unwrap();
            assert_eq!(key.peer_id().to_string(), "3097e2dee2cb4a34b53840cdb705aed71067c36f");
        }
    }

    #[test]
    fn the_handshake_key_is_the_same_key() {
        let key = identity(&encoding::to_base64(&SEED)).ok().unwrap();
        let handshake = key.to_consensus_key();
        let public = PublicKey::from_bytes(KeyType::Ed25519, handshake.verification_key().as_ref()).unwrap();
        assert_eq!(public, key.public_key());
        assert!(public.verifies(b"challenge", &Signature::new(&handshake.sign(b"challenge").to_bytes())));
    }

    #[test]
    fn only_a_seed_is_an_identity() {
        for bytes in [64, 96] {
            let error = identity(&encoding::to_base64(&vec![0x42; bytes])).err().unwrap();
            assert!(error.to_string().contains("must be a 32-byte seed"), "{error}");
        }
        let reason = |content: &[u8]| match identity(content).err().unwrap() {
            KeyError::Malformed { reason, .. } => reason,
            other => panic!("{other}"),
        };
        assert_eq!(reason(&encoding::to_base64(&[0x42; 31])), EncodingError::Length { bytes: 31, expected: &[32] });
        assert_eq!(reason(b"!"), EncodingError::Base64);
        assert_eq!(reason(&[b'4'; 64]), EncodingError::IdentityForm { form: Form::Hex });
        assert_eq!(reason(b"{}"), EncodingError::IdentityForm { form: Form::Json });
        assert_eq!(reason(b"\n"), EncodingError::Empty);
    }

    #[test]
    fn a_new_identity_is_read_back_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms-identity.key");
        let made = IdentityKey::generate(&path).ok().unwrap();
        assert!(matches!(IdentityKey::generate(&path), Err(KeyError::Exists { .. })));
        assert_eq!(IdentityKey::load(&path).ok().unwrap().peer_id(), made.peer_id());
        assert_eq!(std::fs::read(&path).unwrap().len(), 44);

        let other = IdentityKey::generate(&dir.path().join("other.key")).ok().unwrap();
        assert_ne!(other.peer_id(), made.peer_id());
    }
}
