//! Whatever decodes as a record encodes back to the same bytes.
#![no_main]

#[path = "../support/sample.rs"]
mod sample;

use highwater_core::watermark::{RECORD_BYTES, Record};
use libfuzzer_sys::fuzz_target;
use std::array;

fuzz_target!(|bytes: &[u8]| {
    let mut record: [u8; RECORD_BYTES] = array::from_fn(|index| bytes.get(index).copied().unwrap_or(0));
    round_trip(&record);
    // The same with a good checksum, without which no field would ever be read.
    sample::seal(&mut record);
    round_trip(&record);
});

fn round_trip(record: &[u8; RECORD_BYTES]) {
    if let Ok(decoded) = Record::decode(record, &sample::header()) {
        assert_eq!(decoded.encode(), *record);
    }
}
