#![no_main]

#[path = "../../xtask/schema/src/drift.rs"]
mod drift;
#[path = "../../xtask/schema/src/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::drift(data));
