//! The details of each algorithm on a token: its mechanisms, and its public keys in attributes.
//!
//! No token signs with a kind of key that is not in the table.

mod curve;
mod der;
mod ed25519;
mod secp256k1;

pub(crate) use curve::Curve;

use super::{error::TokenError, token_key::TokenKey};
use crate::config::pkcs11::profile::Profile;
use cryptoki::{
    mechanism::{Mechanism, MechanismType},
    object::KeyType as CkKeyType,
};
use highwater_core::consensus::{KeyType, PublicKey, Signature};

static ALGORITHMS: [&dyn TokenAlgorithm; 2] = [&ed25519::TokenEd25519, &secp256k1::TokenSecp256k1];

/// What an algorithm needs from an open token.
pub(crate) trait TokenCalls {
    /// The profile of the device.
    fn profile(&self) -> &Profile;

    /// Whether the token has this mechanism.
    fn lists(&self, mechanism: MechanismType) -> bool;

    /// Lets the device sign `data` unchanged. Writes the signature to `room` and returns its length.
    fn call_sign(
        &self,
        mechanism: &Mechanism<'_>,
        key: &TokenKey,
        data: &[u8],
        room: &mut SignatureRoom,
    ) -> Result<usize, TokenError>;
}

/// Room for a signature: a device that returns more than it should is read, too.
pub(crate) type SignatureRoom = [u8; 256];

/// One algorithm on a token.
pub(crate) trait TokenAlgorithm: Sync {
    /// The kind of key that it signs with.
    fn key_type(&self) -> KeyType;

    /// Reads a bare point, in any form that a device may return.
    fn read_point(&self, point: &[u8]) -> Option<PublicKey>;

    /// The bare point of a public key, in the standard's form.
    fn point_of(&self, key: &PublicKey) -> Vec<u8>;

    /// `CKA_EC_PARAMS` of the curve: the encodings to try, in order.
    fn curve_encodings(&self, profile: &Profile) -> Vec<Vec<u8>>;

    /// Whether a key of this `CKA_KEY_TYPE` may be one, as any module numbers it.
    fn may_be(&self, profile: &Profile, key_type: CkKeyType) -> bool;

    /// The mechanism that signs, as this token numbers it.
    fn signing(&self, token: &dyn TokenCalls) -> Result<MechanismType, TokenError>;

    /// `CKA_KEY_TYPE` as this token numbers it.
    fn ck_key_type(&self, token: &dyn TokenCalls) -> Result<CkKeyType, TokenError>;

    /// The mechanism that makes a key pair.
    fn generating(&self, token: &dyn TokenCalls) -> Result<Mechanism<'static>, TokenError>;

    /// Signs `message` with `key`, in the only form that CometBFT accepts.
    fn sign(&self, token: &dyn TokenCalls, key: &TokenKey, message: &[u8]) -> Result<Signature, TokenError>;
}

/// Every algorithm that tokens sign with.
pub(crate) fn all() -> impl Iterator<Item = &'static dyn TokenAlgorithm> {
    ALGORITHMS.into_iter()
}

/// The algorithm of this kind of key, if tokens sign with it.
pub(crate) fn of(key_type: KeyType) -> Option<&'static dyn TokenAlgorithm> {
    all().find(|algorithm| algorithm.key_type() == key_type)
}

/// Reads `CKA_EC_POINT`: a point wrapped in a DER OCTET STRING, as the standard requires, in a BIT STRING, as of version
/// 3.0 for some curves, in a whole SubjectPublicKeyInfo, or bare.
pub(crate) fn public_key_from_point(key_type: KeyType, bytes: &[u8]) -> Option<PublicKey> {
    let algorithm = of(key_type)?;
    // A bare point may begin with a tag and a matching length by chance. The rest is then too short for a point.
    let inner = der::only(der::OCTET_STRING, bytes).or_else(|| der::only_bits(bytes));
    let point = inner.and_then(|inner| algorithm.read_point(inner)).or_else(|| algorithm.read_point(bytes));
    point.or_else(|| public_key_from_info(key_type, bytes))
}

/// Reads `CKA_PUBLIC_KEY_INFO`, a SubjectPublicKeyInfo in DER.
pub(crate) fn public_key_from_info(key_type: KeyType, bytes: &[u8]) -> Option<PublicKey> {
    let info = der::public_key_info(bytes)?;
    let curve = Curve::by_identifier(info.curve)?;
    if curve.key_type == Some(key_type) { of(key_type)?.read_point(info.point) } else { None }
}

/// The kind of key that Highwater signs with, from `CKA_KEY_TYPE` and `CKA_EC_PARAMS`. Known by every name of its curve,
/// whatever the profile.
pub(crate) fn key_type_of(profile: &Profile, key_type: CkKeyType, params: &[u8]) -> Option<KeyType> {
    let curve = Curve::read(params).and_then(|curve| curve.key_type);
    let is_it = |algorithm: &&dyn TokenAlgorithm| {
        let named = curve == Some(algorithm.key_type());
        let in_profile = || algorithm.curve_encodings(profile).iter().any(|known| known == params);
        algorithm.may_be(profile, key_type) && (named || in_profile())
    };
    all().find(is_it).map(|algorithm| algorithm.key_type())
}

/// `CKA_EC_POINT` of a public key as the standard requires: wrapped in a DER OCTET STRING.
pub(crate) fn wrapped_point_of(algorithm: &dyn TokenAlgorithm, key: &PublicKey) -> Vec<u8> {
    let point = algorithm.point_of(key);
    let length = u8::try_from(point.len()).expect("a point of a curve has fewer than 128 bytes");
    [&[der::OCTET_STRING, length], &point[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        subtle_encoding::hex::decode(text).unwrap()
    }

    // The public keys of the seed 32×0x42; SubjectPublicKeyInfo as OpenSSL writes it.
    const ED25519: &str = "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12";
    const SECP256K1: &str = "0324653eac434488002cc06bbfb7f10fe18991e35f9fe4302dbea6d2353dc0ab1c";

    fn key(key_type: KeyType) -> PublicKey {
        let text = if key_type == KeyType::Ed25519 { ED25519 } else { SECP256K1 };
        PublicKey::from_bytes(key_type, &hex(text)).unwrap()
    }

    fn uncompressed() -> String {
        let point = of(KeyType::Secp256k1).unwrap().point_of(&key(KeyType::Secp256k1));
        String::from_utf8(subtle_encoding::hex::encode(point)).unwrap()
    }

    #[test]
    fn a_point_is_read_however_it_is_wrapped() {
        for (key_type, text) in [
            (KeyType::Ed25519, ED25519.to_owned()),
            (KeyType::Ed25519, format!("0420{ED25519}")),
            (KeyType::Ed25519, format!("048120{ED25519}")),
            (KeyType::Ed25519, format!("032100{ED25519}")),
            (KeyType::Ed25519, format!("40{ED25519}")),
            (KeyType::Ed25519, format!("302a300506032b6570032100{ED25519}")),
            (KeyType::Secp256k1, format!("032200{SECP256K1}")),
            (KeyType::Secp256k1, format!("034200{}", uncompressed())),
            (KeyType::Secp256k1, uncompressed()[2..].to_owned()),
            (KeyType::Secp256k1, SECP256K1.to_owned()),
            (KeyType::Secp256k1, format!("0421{SECP256K1}")),
            (KeyType::Secp256k1, uncompressed()),
            (KeyType::Secp256k1, format!("0441{}", uncompressed())),
        ] {
            assert_eq!(public_key_from_point(key_type, &hex(&text)), Some(key(key_type)), "{text}");
        }
    }

    #[test]
    fn a_public_key_info_is_read() {
        let secp256k1 = "301006072a8648ce3d020106052b8104000a";
        for (key_type, text) in [
            (KeyType::Ed25519, format!("302a300506032b6570032100{ED25519}")),
            (KeyType::Ed25519, format!("3030300b06092b06010401da470f01032100{ED25519}")),
            (KeyType::Secp256k1, format!("3036{secp256k1}032200{SECP256K1}")),
            (KeyType::Secp256k1, format!("3056{secp256k1}034200{}", uncompressed())),
        ] {
            assert_eq!(public_key_from_info(key_type, &hex(&text)), Some(key(key_type)), "{text}");
        }
    }

    #[test]
    fn other_bytes_are_not_read_as_a_key() {
        for text in ["", "04", "0420", &format!("0421{ED25519}"), &ED25519[2..], &format!("{ED25519}00")] {
            assert_eq!(public_key_from_point(KeyType::Ed25519, &hex(text)), None, "{text}");
            assert_eq!(public_key_from_info(KeyType::Ed25519, &hex(text)), None, "{text}");
            assert_eq!(public_key_from_point(KeyType::Secp256k1, &hex(text)), None, "{text}");
        }
        assert_eq!(public_key_from_point(KeyType::Ed25519, &hex(SECP256K1)), None);
        let p256 = format!("3039301306072a8648ce3d020106082a8648ce3d030107032200{SECP256K1}");
        assert_eq!(public_key_from_info(KeyType::Secp256k1, &hex(&p256)), None, "it is on another curve");
    }

    #[test]
    fn no_bytes_panic() {
        let (point, info) = (uncompressed(), format!("302a300506032b6570032100{ED25519}"));
        for text in [ED25519, SECP256K1, &point, &format!("0441{point}"), &info] {
            let bytes = hex(text);
            for cut in 0..=bytes.len() {
                for (at, byte) in (0..cut).flat_map(|at| [0, 3, 4, 0x30, 0x80, 0x82, 0xff].map(|byte| (at, byte))) {
                    let mut changed = bytes[..cut].to_vec();
                    changed[at] = byte;
                    for key_type in [KeyType::Ed25519, KeyType::Secp256k1] {
                        let _ = public_key_from_point(key_type, &changed);
                        let _ = public_key_from_info(key_type, &changed);
                    }
                    let _ = Curve::read(&changed);
                }
            }
        }
    }

    #[test]
    fn a_point_is_written_as_the_standard_requires() {
        for (key_type, length) in [(KeyType::Ed25519, 34), (KeyType::Secp256k1, 67)] {
            let point = wrapped_point_of(of(key_type).unwrap(), &key(key_type));
            assert_eq!(point.len(), length);
            assert_eq!(public_key_from_point(key_type, &point), Some(key(key_type)));
        }
    }
}
