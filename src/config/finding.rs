//! An error or warning about one line of a configuration.

use std::path::Path;

/// An error or warning about the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFinding {
    /// The line, counted from 1; 0 for the whole file.
    pub line: usize,
    /// One sentence: the problem and what to do about it.
    pub text: String,
}

impl ConfigFinding {
    /// `file:line: text`
    pub fn at(&self, path: &Path) -> String {
        match self.line {
            0 => format!("{}: {}", path.display(), self.text),
            line => format!("{}:{line}: {}", path.display(), self.text),
        }
    }
}
