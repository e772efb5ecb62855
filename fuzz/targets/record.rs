//! Whatever decodes as a record encodes back to the same bytes.
#![no_main]

use highwater::watermark::{RECORD_BYTES, Record};
use libfuzzer_sys::fuzz_target;
use std::array;

fuzz_target!(|bytes: &[u8]| {
    let record: [u8; RECORD_BYTES] = array::from_fn(|index| bytes.get(index).copied().unwrap_or(0));
    if let Ok(decoded) = Record::decode(&record) {
        assert_eq!(decoded.encode(), record);
    }
});
