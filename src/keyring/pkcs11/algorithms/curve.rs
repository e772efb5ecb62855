//! `CKA_EC_PARAMS`: the name of a key's curve, as any module writes it.

use super::der;
use highwater_core::consensus::KeyType;
use std::fmt;

/// The curves that modules are known to have, by object identifier and by name in small letters without punctuation. Those
/// that Highwater signs with have a type. The first name is what an operator reads.
const CURVES: [(Option<KeyType>, &[&str], &[&str]); 10] = [
    // RFC 8410, and the one of GnuPG, which Luna uses too.
    (Some(KeyType::Ed25519), &["1.3.101.112", "1.3.6.1.4.1.11591.15.1"], &["Ed25519", "edwards25519", "ided25519"]),
    (Some(KeyType::Secp256k1), &["1.3.132.0.10"], &["secp256k1"]),
    (None, &["1.2.840.10045.3.1.7"], &["P-256", "prime256v1", "secp256r1", "nistp256"]),
    (None, &["1.3.132.0.34"], &["P-384", "secp384r1", "nistp384"]),
    (None, &["1.3.132.0.35"], &["P-521", "secp521r1", "nistp521"]),
    (None, &["1.3.132.0.33"], &["P-224", "secp224r1", "nistp224"]),
    (None, &["1.3.101.113"], &["Ed448", "edwards448", "ided448"]),
    (None, &["1.3.101.110", "1.3.6.1.4.1.3029.1.5.1"], &["X25519", "curve25519", "idx25519"]),
    (None, &["1.3.101.111"], &["X448", "curve448", "idx448"]),
    (None, &["1.2.156.10197.1.301"], &["SM2"]),
];
/// A longer name is not shown.
const NAME_MAX_BYTES: usize = 40;

/// A curve by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Curve {
    /// The kind of key that Highwater signs with on it.
    pub(crate) key_type: Option<KeyType>,
    name: String,
}

impl Curve {
    /// Reads `CKA_EC_PARAMS`: an object identifier, a name in one of DER's kinds of text, or a bare name. `None` if it is
    /// none of these, as with a curve that is spelt out.
    pub(crate) fn read(params: &[u8]) -> Option<Self> {
        if let Some(content) = der::only(der::OBJECT_IDENTIFIER, params) {
            return Self::by_identifier(content);
        }
        let kinds = [der::PRINTABLE_STRING, der::UTF8_STRING, der::IA5_STRING];
        let text = kinds.into_iter().find_map(|tag| der::only(tag, params)).unwrap_or(params);
        let text = text.trim_ascii_end().strip_suffix(&[0]).unwrap_or(text);
        let text = str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))?;
        let plain = plain(text);
        let known = CURVES.iter().find(|(_, _, names)| names.iter().any(|name| self::plain(name) == plain));
        match known {
            Some(known) => Some(Self::known(known)),
            None if (3..=NAME_MAX_BYTES).contains(&text.len()) => Some(Self { key_type: None, name: text.into() }),
            None => None,
        }
    }

    /// The curve with this object identifier, the content of its DER.
    pub(super) fn by_identifier(content: &[u8]) -> Option<Self> {
        let dotted = der::dotted(content);
        let known = CURVES.iter().find(|(_, identifiers, _)| identifiers.contains(&dotted.as_str()));
        let unknown = || Self { key_type: None, name: format!("with the object identifier {dotted}") };
        (!dotted.is_empty() && dotted.len() <= NAME_MAX_BYTES).then(|| known.map_or_else(unknown, Self::known))
    }

    fn known((key_type, _, names): &(Option<KeyType>, &[&str], &[&str])) -> Self {
        Self { key_type: *key_type, name: names[0].into() }
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A name without the signs that differ between vendors.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_known_by_each_of_its_names() {
        for (params, key_type) in [
            (&b"\x06\x03\x2b\x65\x70"[..], Some(KeyType::Ed25519)),
            (b"\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01", Some(KeyType::Ed25519)),
            (b"\x13\x0cedwards25519", Some(KeyType::Ed25519)),
            (b"\x13\x07Ed25519", Some(KeyType::Ed25519)),
            (b"\x13\x07ed25519", Some(KeyType::Ed25519)),
            (b"\x0c\x0cedwards25519", Some(KeyType::Ed25519)),
            (b"\x16\x0aid-Ed25519", Some(KeyType::Ed25519)),
            (b"edwards25519", Some(KeyType::Ed25519)),
            (b"Ed25519\0", Some(KeyType::Ed25519)),
            (b"\x06\x05\x2b\x81\x04\x00\x0a", Some(KeyType::Secp256k1)),
            (b"\x13\x09secp256k1", Some(KeyType::Secp256k1)),
            (b"\x13\x05Ed448", None),
            (b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07", None),
        ] {
            assert_eq!(Curve::read(params).unwrap().key_type, key_type, "{params:?}");
        }
    }

    #[test]
    fn another_curve_is_named() {
        for (params, name) in [
            (&b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"[..], "P-256"),
            (b"\x13\x0aprime256v1", "P-256"),
            (b"\x13\x0fbrainpoolP256r1", "brainpoolP256r1"),
            (b"\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x07", "with the object identifier 1.3.36.3.3.2.8.1.1.7"),
        ] {
            assert_eq!(Curve::read(params).unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_bytes_are_no_curve() {
        for params in
            [&b""[..], b"\x06", b"\x06\x00", b"\x06\x80", b"\x13\x02\xff\xff", b"\x30\x03\x02\x01\x01", &[0xff; 300]]
        {
            assert_eq!(Curve::read(params), None, "{params:?}");
        }
    }
}
