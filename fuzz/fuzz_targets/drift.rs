#![no_main]

#[path = "../../xtask/schema/src/drift.rs"]
mod drift;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drift::fuzz(data));
