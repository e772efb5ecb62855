//! Any text is a foreign state file or a refusal. What is taken becomes a mark, which knows its message only if a signature
//! proves it, and survives the way out and back.
#![no_main]

#[path = "../support/sample.rs"]
mod sample;

use highwater::state::foreign::{self, Program};
use highwater_core::watermark::Mark;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match foreign::read(text, &sample::identity()) {
        Ok(foreign) => {
            assert_eq!(foreign.mark.signed.is_some(), foreign.program == Program::CometBft);
            assert!(foreign.mark.hrs.height > 0 && !foreign::is_tombstone(text));
            let written = foreign::write(Program::Tmkms, &foreign.mark);
            let again = foreign::read(&written, &sample::identity()).expect("what we write we read");
            assert_eq!((again.program, again.mark), (Program::Tmkms, Mark::floor(foreign.mark.hrs)));
            // CometBFT's form carries no proof, which is what keeps its own place closed there.
            let written = foreign::write(Program::CometBft, &foreign.mark);
            assert!(foreign::read(&written, &sample::identity()).is_err());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
