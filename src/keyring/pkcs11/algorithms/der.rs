//! As much of DER as modules wrap points, curves and signatures in. Takes the long form of a length, too.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const IA5_STRING: u8 = 0x16;
pub(super) const SEQUENCE: u8 = 0x30;

/// The content of the element with this tag at the beginning, and what follows it.
pub(super) fn element(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (length, rest) = match rest {
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        [length @ 0..=0x7f, rest @ ..] => (usize::from(*length), rest),
        _ => return None,
    };
    if *found == tag { rest.split_at_checked(length) } else { None }
}

/// The content of the element with this tag, if there is nothing else.
pub(super) fn only(tag: u8, bytes: &[u8]) -> Option<&[u8]> {
    element(tag, bytes).filter(|(_, rest)| rest.is_empty()).map(|(content, _)| content)
}

/// The bytes of a BIT STRING of whole bytes, if there is nothing else.
pub(super) fn only_bits(bytes: &[u8]) -> Option<&[u8]> {
    only(BIT_STRING, bytes)?.strip_prefix(&[0])
}

/// A SubjectPublicKeyInfo of an elliptic curve.
pub(super) struct PublicKeyInfo<'a> {
    /// The object identifier of the curve: of the parameters, or else of the algorithm.
    pub(super) curve: &'a [u8],
    pub(super) point: &'a [u8],
}

pub(super) fn public_key_info(bytes: &[u8]) -> Option<PublicKeyInfo<'_>> {
    let (algorithm, key) = element(SEQUENCE, only(SEQUENCE, bytes)?)?;
    let (name, parameters) = element(OBJECT_IDENTIFIER, algorithm)?;
    let curve = only(OBJECT_IDENTIFIER, parameters).unwrap_or(name);
    Some(PublicKeyInfo { curve, point: only_bits(key)? })
}

/// An object identifier as it is written: `1.3.101.112`.
pub(super) fn dotted(content: &[u8]) -> String {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0_u64;
    for byte in content {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            match arcs.is_empty() {
                true => arcs.extend([(arc / 40).min(2), arc - 40 * (arc / 40).min(2)]),
                false => arcs.push(arc),
            }
            arc = 0;
        }
    }
    arcs.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// A positive INTEGER of at most 32 bytes, filled up with zeros, and what follows it.
pub(super) fn scalar(bytes: &[u8]) -> Option<([u8; 32], &[u8])> {
    let (content, rest) = element(INTEGER, bytes)?;
    let zeros = content.iter().take_while(|byte| **byte == 0).count();
    let digits = &content[zeros..];
    let mut scalar = [0; 32];
    scalar.get_mut(32_usize.checked_sub(digits.len())?..)?.copy_from_slice(digits);
    Some((scalar, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_identifier_is_written_with_dots() {
        for (content, text) in [
            (&[0x2b, 0x65, 0x70][..], "1.3.101.112"),
            (&[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01], "1.3.6.1.4.1.11591.15.1"),
            (&[0x88, 0x37], "2.999"),
            (&[], ""),
            (&[0x80], ""),
        ] {
            assert_eq!(dotted(content), text);
        }
    }

    #[test]
    fn a_length_may_be_long() {
        for bytes in [&[0x04, 0x01, 0xaa][..], &[0x04, 0x81, 0x01, 0xaa], &[0x04, 0x82, 0x00, 0x01, 0xaa]] {
            assert_eq!(only(OCTET_STRING, bytes), Some(&[0xaa][..]));
        }
        for bytes in
            [&[][..], &[0x04], &[0x04, 0x02, 0xaa], &[0x04, 0x80, 0xaa], &[0x04, 0x83, 0, 0, 1, 0xaa], &[0x30, 0]]
        {
            assert_eq!(only(OCTET_STRING, bytes), None, "{bytes:?}");
        }
    }
}
