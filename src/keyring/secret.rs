//! Secret bytes.

use zeroize::Zeroizing;

/// `N` secret bytes that are wiped when dropped. They are boxed, so that a move leaves no copy behind.
pub type Secret<const N: usize> = Box<Zeroizing<[u8; N]>>;
