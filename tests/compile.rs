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

#[test]
fn the_readme_shows_lines_of_the_compilers_own_message_in_their_order() {
    let readme = include_str!("../README.md");
    let (_, shown) = readme.split_once("```text\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    assert!(shown.starts_with("error[") && shown.contains(" ^") && shown.contains(" = note: "), "{shown}");
    let mut said = include_str!("compile_fail/compression_with_png.stderr").lines();
    for line in shown.lines() {
        assert!(said.any(|other| other == line), "the compiler does not say: {line}");
    }
}
