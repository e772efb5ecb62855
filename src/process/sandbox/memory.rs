//! Pages that hold secrets: kept out of swap and core dumps.
#![allow(unsafe_code)]

use rustix::{
    mm::{self, Advice},
    param::page_size,
};
use std::{ffi::c_void, ptr};

/// Locks the pages that `value` lies on into memory and leaves them out of core dumps. False if the system does not let
/// us (`RLIMIT_MEMLOCK`). They stay so when the value goes: others may lie on the same pages.
pub fn lock<T: ?Sized>(value: &T) -> bool {
    let bytes = size_of_val(value);
    let inside = ptr::from_ref(value).cast::<c_void>().cast_mut();
    let offset = inside.addr() % page_size();
    let (begin, length) = (inside.wrapping_byte_sub(offset), bytes + offset);
    if bytes == 0 {
        return true;
    }
    // SAFETY: the range holds whole pages on which a live value lies; locking changes no memory, and a freed page that is
    // still locked is an ordinary one to the allocator.
    let locked = unsafe { mm::mlock(begin, length) };
    // SAFETY: as above; the advice only leaves the pages out of core dumps.
    let hidden = unsafe { mm::madvise(begin, length, Advice::LinuxDontDump) };
    locked.is_ok() && hidden.is_ok()
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
