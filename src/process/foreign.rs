//! Text from other programs: a vendor's module, a connector, a hook.
//!
//! Such text appears in the log, in `status`, in the audit file and in a node's log, and stays in memory until then. It
//! is sanitised on entry, so no later code has to.

use serde::Serialize;
use std::{fmt, ops::Deref};

/// One line of text of at most [`ForeignText::MAX_BYTES`], without characters that control a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForeignText(Box<str>);

impl ForeignText {
    /// The longest text, including the mark for truncation.
    pub const MAX_BYTES: usize = 900;
    /// Marks a truncated text.
    const CUT: &str = " (cut off)";

    /// Makes text from bytes that should be UTF-8.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // More is never shown. This avoids copying up to four megabytes.
        let head = &bytes[..bytes.len().min(Self::MAX_BYTES + 4)];
        Self::new(&String::from_utf8_lossy(head))
    }

    fn new(text: &str) -> Self {
        let mut clean = String::new();
        // The longest prefix after which `CUT` still fits.
        let mut whole = 0;
        for c in text.trim_end().chars() {
            let before = clean.len();
            if is_harmless(c) {
                clean.push(c);
            } else {
                // As in a Rust string: `\n`, `\u{1b}`.
                clean.extend(c.escape_default());
            }
            if before <= Self::MAX_BYTES - Self::CUT.len() {
                whole = before;
            }
            if clean.len() > Self::MAX_BYTES {
                clean.truncate(whole);
                clean.push_str(Self::CUT);
                break;
            }
        }
        Self(clean.into())
    }
}

/// Whether `c` is neither a control character nor one that reorders, hides or breaks text.
fn is_harmless(c: char) -> bool {
    let steers = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !steers
}

impl From<&str> for ForeignText {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for ForeignText {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl Deref for ForeignText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ForeignText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_as_it_is() {
        for text in ["", "C_Sign answered CKR_DEVICE_ERROR", "l'hôte est « perdu »", "鍵がない"] {
            assert_eq!(&*ForeignText::from(text), text);
        }
        assert_eq!(&*ForeignText::from("with a newline at its end\n"), "with a newline at its end");
    }

    #[test]
    fn characters_that_control_a_terminal_or_begin_a_line_are_escaped() {
        for (text, shown) in [
            ("a\nWARN b", "a\\nWARN b"),
            ("a\r\x1b[2Jb", "a\\r\\u{1b}[2Jb"),
            ("a\u{9b}31mb\0", "a\\u{9b}31mb\\u{0}"),
            ("a\u{202e}b\u{2028}c", "a\\u{202e}b\\u{2028}c"),
        ] {
            assert_eq!(&*ForeignText::from(text), shown);
        }
        assert_eq!(&*ForeignText::from_bytes(b"a\xffb"), "a\u{fffd}b");
    }

    #[test]
    fn no_text_is_longer_than_the_limit() {
        let fits = "x".repeat(ForeignText::MAX_BYTES);
        assert_eq!(&*ForeignText::from(fits.as_str()), fits);
        for filler in ["x", "é", "鍵", "\0", "\u{10ffff}", "\u{202e}"] {
            for length in 480..520 {
                let text = filler.repeat(length);
                for made in [ForeignText::from(text.as_str()), ForeignText::from_bytes(text.as_bytes())] {
                    assert!(made.len() <= ForeignText::MAX_BYTES, "{} of {filler:?}", made.len());
                    assert!(made.len() >= 480, "{} of {filler:?}", made.len());
                }
            }
        }
        let cut = ForeignText::from("x".repeat(4 << 20));
        assert!(cut.ends_with("x (cut off)") && cut.len() == ForeignText::MAX_BYTES, "{cut}");
    }
}
