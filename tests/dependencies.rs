//! What each choice of features brings, as `cargo tree` shows it.

// Helpers are not marked as tests, but a panic in one is a failed test all the same.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::Command;

/// The names of the crates that a user's build compiles with these features.
fn crates(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "lumenfall", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn has(crates: &BTreeSet<String>, names: &[&str]) -> Vec<String> {
    names.iter().filter(|name| crates.contains(**name)).map(|name| (*name).to_owned()).collect()
}

#[test]
fn rustls_comes_without_the_systems_library_and_without_aws_lc() {
    let crates = crates(&[]);
    assert_eq!(has(&crates, &["rustls", "ring"]), ["rustls", "ring"]);
    assert_eq!(has(&crates, &["native-tls", "openssl", "openssl-sys", "aws-lc-rs", "aws-lc-sys"]), [""; 0]);
}

#[test]
fn native_tls_comes_without_rustls() {
    let crates = crates(&["--no-default-features", "--features", "native-tls"]);
    assert_eq!(has(&crates, &["native-tls"]), ["native-tls"]);
    assert_eq!(has(&crates, &["rustls", "ring", "aws-lc-rs", "hyper-rustls"]), [""; 0]);
}

#[test]
fn without_a_choice_there_is_no_tls() {
    let crates = crates(&["--no-default-features"]);
    assert_eq!(has(&crates, &["rustls", "native-tls", "ring", "openssl"]), [""; 0]);
}

#[test]
fn the_default_is_small_and_carries_no_tensors_no_image_codec_and_no_tracing() {
    let crates = crates(&[]);
    assert!(crates.len() <= 110, "{} crates: {crates:?}", crates.len());
    let heavy = ["lumenfall-diffusion", "candle-core", "gemm", "image", "png", "tokenizers", "opentelemetry", "sha2"];
    assert_eq!(has(&crates, &heavy), [""; 0]);
}
