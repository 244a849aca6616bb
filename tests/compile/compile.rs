//! Tests which requests compile, and which messages the compiler reports for the others.
#![allow(dead_code, clippy::indexing_slicing, clippy::unwrap_used, reason = "the valid requests are only compiled")]

mod pass;

use std::process::Command;
use std::{env, fs};

/// The compiler's flags. trybuild compiles all dependencies, changes these flags, and compiles them again, unless they are
/// set in the environment.
const FLAGS: &str = "CARGO_ENCODED_RUSTFLAGS";

#[test]
fn invalid_requests_fail_to_compile_with_a_message_that_says_what_to_write() {
    if env::var_os(FLAGS).is_some() {
        trybuild::TestCases::new().compile_fail("fail/*.rs");
        return;
    }
    let flags = ["--cfg", "trybuild", "--verbose", "-A", "dead_code", "--diagnostic-width=140"].join("\x1f");
    let mut this_test = Command::new(env::current_exe().unwrap());
    this_test.args(["invalid_requests", "--nocapture"]).env(FLAGS, flags);
    assert!(this_test.status().unwrap().success(), "see the report above");
}

#[test]
fn the_message_in_the_readme_is_the_compilers_message() {
    let readme = fs::read_to_string("../../README.md").unwrap();
    let (_, shown) = readme.split_once("```text\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    assert!(shown.starts_with("error[") && shown.contains(" ^") && shown.contains(" = note: "), "{shown}");
    let message = fs::read_to_string("fail/requests.stderr").unwrap();
    let mut message = message.lines();
    for line in shown.lines() {
        assert!(message.any(|other| other == line), "not in the compiler's message: {line}");
    }
}
