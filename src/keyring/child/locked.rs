//! A few secret bytes that are kept out of swap and core dumps.

use crate::process::sandbox::memory;
use std::ops::Deref;
use zeroize::Zeroize as _;

/// What a page takes on every machine that Linux HSM modules exist for, or more.
const PAGE_BYTES: usize = 4096;

/// Most bytes that fit.
pub(super) const LOCKED_MAX_BYTES: usize = PAGE_BYTES;

/// A page of its own, so that locking it touches nothing else.
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// Secret bytes in a locked page; wiped when dropped.
pub(super) struct Locked {
    page: Box<Page>,
    length: usize,
}

impl Locked {
    /// Moves `secret` into a locked page. A system that does not let us lock one (`RLIMIT_MEMLOCK`) is no reason not
    /// to sign: the page is then an ordinary one. `None` if it does not fit.
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
