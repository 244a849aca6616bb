#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lumenfall_diffusion::fuzz::tokenizer(data));
