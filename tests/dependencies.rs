//! Checks the crates that each set of features compiles, as `cargo tree` lists them.

// Clippy does not recognise helper functions as part of tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::Command;

/// Returns the names of the crates that a user's build compiles.
fn crates(package: &str, arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn each_set_of_features_compiles_only_its_libraries() {
    let none = ["--no-default-features"];
    let ring = ["--no-default-features", "--features", "rustls-ring"];
    let native_tls = ["--no-default-features", "--features", "native-tls"];
    // `gemm-f16` does not compile for 64-bit ARM without optimization.
    let arm = ["--no-default-features", "--features", "local", "--target", "aarch64-unknown-linux-gnu"];
    let optional = ["lumenfall-diffusion", "gemm", "image", "png", "tokenizers", "opentelemetry", "sha2"];
    let tls = ["rustls", "native-tls", "ring", "openssl"];
    for (package, arguments, included, excluded) in [
        ("lumenfall", &[][..], &["rustls", "aws-lc-rs"][..], &optional[..]),
        ("lumenfall", &[], &[], &["native-tls", "openssl", "openssl-sys", "ring"]),
        ("lumenfall", &ring, &["rustls", "ring"], &["native-tls", "openssl", "aws-lc-rs", "aws-lc-sys"]),
        ("lumenfall-cli", &[], &["rustls", "ring"], &["aws-lc-rs", "aws-lc-sys"]),
        ("lumenfall", &native_tls, &["native-tls"], &["rustls", "ring", "aws-lc-rs", "hyper-rustls"]),
        ("lumenfall", &none, &["reqwest"], &tls),
        ("lumenfall", &arm, &["gemm", "gemm-f32"], &["gemm-f16"]),
        ("lumenfall-cli", &none, &["reqwest"], &tls),
    ] {
        let crates = crates(package, arguments);
        for (names, expected) in [(included, true), (excluded, false)] {
            for name in names {
                assert_eq!(crates.contains(*name), expected, "{package} {arguments:?}: `{name}` in {crates:?}");
            }
        }
    }
}

#[test]
fn the_default_features_compile_few_crates() {
    let crates = crates("lumenfall", &[]);
    assert!(crates.len() <= 115, "{} crates: {crates:?}", crates.len());
}
