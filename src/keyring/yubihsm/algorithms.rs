//! The details of each algorithm on a YubiHSM 2.
//!
//! The device does not sign with a kind of key that is not in the table.

use super::codes::{SIGN_ECDSA, SIGN_EDDSA};
use crate::keyring::device::Trouble;
use highwater_core::consensus::{KeyType, PublicKey, Signature};
use k256::ecdsa::{Signature as EcdsaSignature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use yubihsm::{Capability, asymmetric};

static ALGORITHMS: [DeviceAlgorithm; 2] = [
    DeviceAlgorithm {
        key_type: KeyType::Ed25519,
        asymmetric: asymmetric::Algorithm::Ed25519,
        may_sign: Capability::SIGN_EDDSA,
        public_key: |bytes| PublicKey::from_bytes(KeyType::Ed25519, bytes).ok(),
        sign: SIGN_EDDSA,
        signed: |message| Cow::Borrowed(message),
        signature: |bytes| (bytes.len() == ED25519_SIGNATURE_BYTES).then(|| Signature::new(bytes)),
    },
    DeviceAlgorithm {
        key_type: KeyType::Secp256k1,
        asymmetric: asymmetric::Algorithm::EcK256,
        may_sign: Capability::SIGN_ECDSA,
        public_key: from_coordinates,
        sign: SIGN_ECDSA,
        signed: |message| Cow::Owned(Sha256::digest(message).to_vec()),
        signature: low_s,
    },
];

const ED25519_SIGNATURE_BYTES: usize = 64;

/// One algorithm on the device.
pub(crate) struct DeviceAlgorithm {
    /// The kind of key that it signs with.
    pub(crate) key_type: KeyType,
    /// The device's name for it.
    pub(crate) asymmetric: asymmetric::Algorithm,
    /// The capability that a key needs for signing.
    pub(crate) may_sign: Capability,
    /// Reads a public key in the device's form.
    pub(super) public_key: fn(&[u8]) -> Option<PublicKey>,
    /// The code of the command that signs.
    pub(super) sign: u8,
    /// What the device is given to sign.
    pub(super) signed: fn(&[u8]) -> Cow<'_, [u8]>,
    /// Converts the device's signature to the only form that CometBFT accepts.
    pub(super) signature: fn(&[u8]) -> Option<Signature>,
}

/// The algorithm of this kind of key.
pub(crate) fn of(key_type: KeyType) -> Result<&'static DeviceAlgorithm, Trouble> {
    let found = ALGORITHMS.iter().find(|algorithm| algorithm.key_type == key_type);
    found.ok_or_else(|| Trouble::Rejected(format!("no YubiHSM signs with {key_type} keys").into()))
}

/// The algorithm with this name on the device.
pub(crate) fn named(asymmetric: asymmetric::Algorithm) -> Option<&'static DeviceAlgorithm> {
    ALGORITHMS.iter().find(|algorithm| algorithm.asymmetric == asymmetric)
}

/// The key with these coordinates, if they are a point on the curve.
fn from_coordinates(coordinates: &[u8]) -> Option<PublicKey> {
    /// SEC 1: both coordinates follow.
    const UNCOMPRESSED: u8 = 4;
    let point = [&[UNCOMPRESSED], coordinates].concat();
    VerifyingKey::from_sec1_bytes(&point).ok().map(PublicKey::from)
}

/// `R‖S` with low S, from the device's DER, whose S is high half of the time.
fn low_s(der: &[u8]) -> Option<Signature> {
    let signature = EcdsaSignature::from_der(der).ok()?;
    Some(Signature::new(&signature.normalize_s().unwrap_or(signature).to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::softsign::SecretKey;
    use highwater_core::signer::Signer;

    fn software_key() -> Box<dyn Signer> {
        SecretKey::from_raw(KeyType::Secp256k1, &[0x42; 32]).unwrap().into_signer()
    }

    #[test]
    fn ecdsa_signatures_get_low_s() {
        let key = software_key();
        let signed = key.sign(b"message").unwrap();
        let low = EcdsaSignature::from_slice(signed.as_bytes()).unwrap();
        let high = EcdsaSignature::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes()).unwrap();
        assert_ne!(low, high);
        for given in [low, high] {
            assert_eq!(low_s(given.to_der().as_bytes()), Some(signed.clone()));
        }
        assert_eq!(low_s(signed.as_bytes()), None, "not DER");
    }

    #[test]
    fn a_secp256k1_key_is_read_from_its_coordinates() {
        let key = software_key().public_key();
        let point = VerifyingKey::from_sec1_bytes(key.as_bytes()).unwrap().to_encoded_point(false);
        assert_eq!(from_coordinates(&point.as_bytes()[1..]), Some(key));
        assert_eq!(from_coordinates(&[1; 64]), None, "not on the curve");
        assert_eq!(from_coordinates(&[]), None);
    }
}
