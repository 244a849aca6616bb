//! Schema to Rust source: typed request builders for `lumenfall`.
