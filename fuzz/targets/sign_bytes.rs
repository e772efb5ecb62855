//! Whatever reads as sign bytes is, to the byte, what would be written.
#![no_main]

use highwater_core::privval::Canonical;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((canonical, chain)) = Canonical::parse(bytes) {
        assert_eq!(canonical.sign_bytes(&chain).as_slice(), bytes);
    }
});
