//! PINs: what is taken for one.

use crate::{
    config::SecretSource,
    keyring::secret_source::{self, SECRET_MAX_BYTES},
};
use zeroize::Zeroizing;

/// Reads the PIN, without the end of the line. The error says what to do, and shows nothing of the PIN.
pub fn read(source: &SecretSource) -> Result<Zeroizing<Vec<u8>>, String> {
    let pin = secret_source::read(source, "PIN")?;
    secret_source::refuse_impossible(&pin).map_err(|what| format!("the PIN in {source} {what}. It was not sent"))?;
    let length = pin.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    match length {
        0 => Err("the PIN is empty".into()),
        1..=SECRET_MAX_BYTES => Ok(Zeroizing::new(pin[..length].to_vec())),
        _ => Err(format!("the PIN is longer than {SECRET_MAX_BYTES} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    fn inline(text: &str) -> Result<Vec<u8>, String> {
        read(&SecretSource::Inline(Secret::new(text))).map(|pin| pin.to_vec())
    }

    #[test]
    fn the_end_of_the_line_is_no_part_of_a_pin() {
        for text in ["1234", "1234\n", "1234\r\n", "1234\n\n"] {
            assert_eq!(inline(text).unwrap(), b"1234");
        }
        assert_eq!(inline(" 12 34 \n").unwrap(), b" 12 34 ");
    }

    #[test]
    fn what_cannot_be_a_pin_is_refused_and_not_shown() {
        let long = "1".repeat(SECRET_MAX_BYTES + 1);
        assert_eq!(inline("\n").unwrap_err(), "the PIN is empty");
        assert!(!inline(&long).unwrap_err().contains("1111"));
        for (text, words) in [
            ("\u{feff}1234\n", "byte order mark"),
            ("12\u{0}34\n", "NUL"),
            ("\n1234\n", "an empty line before it"),
            ("\r\n1234\n", "an empty line before it"),
            ("1234\n# of the validator\n", "another line"),
            ("1234\n\n5678", "another line"),
        ] {
            let why = inline(text).unwrap_err();
            assert!(why.contains(words) && why.contains("not sent") && !why.contains("34"), "{why}");
        }
    }

    #[test]
    fn a_pin_file_must_be_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        fs::write(&path, "1234\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let source = SecretSource::File(path.clone());
        assert_eq!(*read(&source).unwrap(), b"1234");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&source).unwrap_err().contains("chmod 600"));
    }
}
