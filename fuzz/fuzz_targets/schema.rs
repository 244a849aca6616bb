#![no_main]

libfuzzer_sys::fuzz_target!(|json: &str| {
    let _ = lumenfall_codegen::generate("fuzz.json", json);
});
