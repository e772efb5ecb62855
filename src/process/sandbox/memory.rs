//! Keeps pages with secrets out of swap and core dumps.
#![allow(unsafe_code)]

use rustix::{
    mm::{self, Advice},
    param::page_size,
    process::{Resource, getrlimit},
};
use std::{ffi::c_void, ptr};

/// Locks the pages of `value` into memory and excludes them from core dumps. Returns false if the system does not allow
/// it (`RLIMIT_MEMLOCK`). The pages stay locked after the value is dropped: they may contain other values.
pub fn lock<T: ?Sized>(value: &T) -> bool {
    let bytes = size_of_val(value);
    let inside = ptr::from_ref(value).cast::<c_void>().cast_mut();
    let offset = inside.addr() % page_size();
    let (begin, length) = (inside.wrapping_byte_sub(offset), bytes + offset);
    if bytes == 0 {
        return true;
    }
    // SAFETY: the range consists of whole pages with a live value. Locking changes no memory, and the allocator can use
    // freed pages that are still locked.
    let locked = unsafe { mm::mlock(begin, length) };
    // SAFETY: as above; the advice only excludes the pages from core dumps.
    let hidden = unsafe { mm::madvise(begin, length, Advice::LinuxDontDump) };
    locked.is_ok() && hidden.is_ok()
}

/// How many bytes this process may lock. `None` means that there is no limit.
pub(super) fn limit() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// Why keys cannot be locked under this limit.
pub(super) fn why_not_locked(limit: Option<u64>) -> &'static str {
    /// More than all secrets of a signer take, and the limit that old systems give.
    const ENOUGH: u64 = 64 * 1024;
    if limit.is_none_or(|bytes| bytes >= ENOUGH) {
        "cannot lock keys into memory, although RLIMIT_MEMLOCK allows it: a filter of system calls around this process, of a \
         container or of its unit, hides mlock"
    } else {
        "cannot lock keys into memory: raise RLIMIT_MEMLOCK (LimitMEMLOCK= of the systemd unit)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked_kb() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn a_limit_that_is_high_enough_is_not_blamed() {
        assert!(why_not_locked(Some(0)).contains("raise RLIMIT_MEMLOCK"));
        for limit in [Some(8 * 1024 * 1024), None] {
            assert!(why_not_locked(limit).contains("hides mlock"), "{limit:?}");
        }
    }

    #[test]
    fn values_of_any_size_are_locked() {
        assert!(lock(&[0_u8; 0]));
        for bytes in [1, 32, 5000] {
            let value = vec![7_u8; bytes];
            assert!(lock(value.as_slice()), "{bytes}");
            assert_eq!(value, vec![7; bytes]);
        }
        assert!(locked_kb() >= 8, "{}", locked_kb());
    }
}
