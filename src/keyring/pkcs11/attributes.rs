//! Public keys as PKCS#11 attributes carry them. Pure.

use highwater_core::consensus::{KeyType, PublicKey};

/// `CKA_EC_PARAMS` of a secp256k1 key: the object identifier 1.3.132.0.10 in DER.
pub(crate) const SECP256K1_PARAMS: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// DER tag of an OCTET STRING.
const OCTET_STRING: u8 = 0x04;

/// What precedes the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const INFO_ED25519: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The algorithm in a SubjectPublicKeyInfo of a secp256k1 key (RFC 5480): id-ecPublicKey, secp256k1.
const ALGORITHM_SECP256K1: &[u8] =
    &[0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// Length of a compressed secp256k1 point.
const COMPRESSED: u8 = 33;
/// Length of an uncompressed secp256k1 point.
const UNCOMPRESSED: u8 = 65;

/// Reads `CKA_EC_POINT`: a point wrapped in a DER OCTET STRING, as the standard has it, or bare.
pub(crate) fn public_key_from_point(key_type: KeyType, bytes: &[u8]) -> Option<PublicKey> {
    // A bare point may begin with the tag and a fitting length by chance. What is inside is then too short for a point.
    let inner = match bytes {
        [OCTET_STRING, length, inner @ ..] if usize::from(*length) == inner.len() => point(key_type, inner),
        _ => None,
    };
    inner.or_else(|| point(key_type, bytes))
}

/// Reads `CKA_PUBLIC_KEY_INFO`, a SubjectPublicKeyInfo in DER.
pub(crate) fn public_key_from_info(key_type: KeyType, bytes: &[u8]) -> Option<PublicKey> {
    match key_type {
        KeyType::Ed25519 => point(key_type, bytes.strip_prefix(INFO_ED25519)?),
        KeyType::Secp256k1 => [COMPRESSED, UNCOMPRESSED].into_iter().find_map(|length| {
            // SEQUENCE of the algorithm and a BIT STRING without unused bits.
            let bits = length + 1;
            let whole = u8::try_from(ALGORITHM_SECP256K1.len()).ok()? + 2 + bits;
            let prefix = [&[0x30, whole], ALGORITHM_SECP256K1, &[0x03, bits, 0x00]].concat();
            point(key_type, bytes.strip_prefix(&prefix[..])?)
        }),
    }
}

/// `CKA_EC_POINT` of a public key as the standard has it: wrapped in a DER OCTET STRING, secp256k1 uncompressed.
pub(crate) fn point_of(key: &PublicKey) -> Vec<u8> {
    let point = match key {
        PublicKey::Ed25519(key) => key.to_bytes().to_vec(),
        PublicKey::Secp256k1(key) => key.to_encoded_point(false).as_bytes().to_vec(),
    };
    let length = u8::try_from(point.len()).expect("a point has 32 or 65 bytes");
    [&[OCTET_STRING, length], &point[..]].concat()
}

/// A bare point: 32 bytes for Ed25519, 33 or 65 for secp256k1.
fn point(key_type: KeyType, bytes: &[u8]) -> Option<PublicKey> {
    match key_type {
        KeyType::Secp256k1 if bytes.len() == usize::from(UNCOMPRESSED) => {
            k256::ecdsa::VerifyingKey::from_sec1_bytes(bytes).ok().map(PublicKey::Secp256k1)
        }
        KeyType::Ed25519 | KeyType::Secp256k1 => PublicKey::from_bytes(key_type, bytes).ok(),
    }
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
        let PublicKey::Secp256k1(key) = key(KeyType::Secp256k1) else { unreachable!() };
        String::from_utf8(subtle_encoding::hex::encode(key.to_encoded_point(false))).unwrap()
    }

    #[test]
    fn a_point_is_read_wrapped_or_bare() {
        for (key_type, text) in [
            (KeyType::Ed25519, ED25519.to_owned()),
            (KeyType::Ed25519, format!("0420{ED25519}")),
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
            (KeyType::Secp256k1, format!("3036{secp256k1}032200{SECP256K1}")),
            (KeyType::Secp256k1, format!("3056{secp256k1}034200{}", uncompressed())),
        ] {
            assert_eq!(public_key_from_info(key_type, &hex(&text)), Some(key(key_type)), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_not_read() {
        for text in ["", "04", "0420", &format!("0421{ED25519}"), &ED25519[2..], &format!("{ED25519}00")] {
            assert_eq!(public_key_from_point(KeyType::Ed25519, &hex(text)), None, "{text}");
            assert_eq!(public_key_from_info(KeyType::Ed25519, &hex(text)), None, "{text}");
            assert_eq!(public_key_from_point(KeyType::Secp256k1, &hex(text)), None, "{text}");
        }
        assert_eq!(public_key_from_point(KeyType::Ed25519, &hex(SECP256K1)), None);
    }

    #[test]
    fn a_point_is_written_as_the_standard_has_it() {
        for (key_type, length) in [(KeyType::Ed25519, 34), (KeyType::Secp256k1, 67)] {
            let point = point_of(&key(key_type));
            assert_eq!(point.len(), length);
            assert_eq!(public_key_from_point(key_type, &point), Some(key(key_type)));
        }
    }
}
