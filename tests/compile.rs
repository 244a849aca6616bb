//! What compiles and what does not, and what the compiler says about it.
#![allow(dead_code, clippy::indexing_slicing, reason = "the legal neighbours are there to compile, not to run")]

#[path = "compile_pass/edit.rs"]
mod edit;
#[path = "compile_pass/generate.rs"]
mod generate;

#[test]
fn rules_of_the_schema_fail_to_compile_with_their_own_message() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
