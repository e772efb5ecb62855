//! What is said about a configuration, and about which line of it.

use std::path::Path;

/// Something an operator should know about the configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFinding {
    /// The line, counted from 1; 0 where the whole file is meant.
    pub line: usize,
    /// One sentence: what, and what to do.
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
