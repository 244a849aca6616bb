#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lumenfall::fuzz::file_name(data));
