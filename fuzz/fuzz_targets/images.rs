#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lumenfall::fuzz::images(data));
