//! Secret bytes that are kept out of swap and core dumps.

use crate::process::sandbox::memory;
use std::ops::Deref;
use zeroize::Zeroize as _;

/// At least the size of a page on every machine for which Linux HSM modules exist.
const PAGE_BYTES: usize = 4096;

/// The longest secret that fits.
pub(super) const LOCKED_MAX_BYTES: usize = PAGE_BYTES;

/// A whole page, so that locking it affects nothing else.
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// Secret bytes in a locked page; wiped when dropped.
pub(super) struct Locked {
    page: Box<Page>,
    length: usize,
}

impl Locked {
    /// Copies `secret` into a locked page. If the system does not allow that (`RLIMIT_MEMLOCK`), signing goes on with
    /// an ordinary page. `None` if the secret does not fit.
    pub(super) fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() > LOCKED_MAX_BYTES {
            return None;
        }
        let mut page = Box::new(Page([0; PAGE_BYTES]));
        memory::lock(&page.0);
        page.0[..secret.len()].copy_from_slice(secret);
        Some(Self { page, length: secret.len() })
    }
}

impl Deref for Locked {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.page.0[..self.length]
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.page.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_every_length_up_to_a_page_are_kept() {
        for length in [0, 1, 100, LOCKED_MAX_BYTES] {
            let secret = vec![7; length];
            assert_eq!(*Locked::new(&secret).unwrap(), *secret);
        }
        assert!(Locked::new(&[0; LOCKED_MAX_BYTES + 1]).is_none());
    }
}
