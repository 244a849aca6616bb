//! Typed Rust SDK for generating and editing images with Stable Diffusion 3.5 Medium: through the Lumenfall gateway or any
//! OpenAI-compatible server, or natively on your own machine.
//!
//! ```no_run
//! use lumenfall::{Client, Input, Webp, count, percent, size};
//!
//! # async fn run() -> Result<(), lumenfall::Error> {
//! let client = Client::from_env()?; // the gateway; `Client::local(folder)?` runs on this machine
//!
//! let images = client
//!     .images()
//!     .generate("a hand-painted sign that says FRESH SOURDOUGH DAILY")
//!     .size(size!("1024x1024"))
//!     .output_format(Webp)
//!     .output_compression(percent!(80))
//!     .n(count!(2))
//!     .inline()
//!     .send()
//!     .await?;
//! images[0].save("sign.webp").await?;
//!
//! let edit = client.images().edit(Input::path("source.png")).prompt("add a starry night sky");
//! edit.send().await?[0].save("night.png").await?;
//! # Ok(())
//! # }
//! ```
//!
//! A request that the model's schema does not allow does not compile, and the compiler's message says what to write instead:
//!
//! ```compile_fail
//! # use lumenfall::{Client, Png, percent};
//! # fn run(client: Client) {
//! client.images().generate("a lighthouse").output_format(Png).output_compression(percent!(80));
//! # }
//! ```
//!
//! Values that are known only at run time have checked setters, such as `try_n(n)?` and `try_size(size)?`. A request can also
//! be built as plain data, a [`GenerateSpec`](backend::GenerateSpec) or an [`EditSpec`](backend::EditSpec).
//!
//! # Where to go next
//!
//! - [`Client`]: the entry point, and [`remote`] for the settings of the remote services.
//! - [`layers`]: fallback, retry, rate limit, spend cap and cache, which wrap a backend.
//! - [`backend`]: the trait to implement a custom backend.
//! - [`Error`]: one error type; [`Error::maybe_billed`] reports whether a failed request may have been billed.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `rustls` | yes | TLS with rustls and aws-lc |
//! | `rustls-ring` | | TLS with rustls and ring, which builds faster; see [docs/remote.md](https://github.com/lumenfall-ai/lumenfall-rs/blob/main/docs/remote.md) |
//! | `native-tls` | | TLS with the system's library |
//! | `local` | | `Client::local` and `Client::demo`: the native pipeline, with a small demonstration model |
//! | `avif` | | AVIF files from the native pipeline |
//! | `hub` | | `Local::from_hub`: downloads from the Hugging Face Hub |
//! | `gpu` | | the native pipeline on a GPU through Vulkan, Metal or DX12 |
//! | `reqwest-client` | | your own HTTP client, of `reqwest` 0.13 |
//! | `blocking` | | `.wait()` in place of `.await` |
//! | `cache` | | a layer that stores responses on disk |
//! | `otel` | | the header `traceparent` with API requests, if `tracing` is connected to OpenTelemetry |
//! | `testing` | | a mock backend, a mock gateway, and a conformance suite for custom backends |

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
#[cfg(feature = "blocking")]
pub mod blocking;
mod client;
mod error;
#[cfg(not(feature = "local"))]
mod feature_hints;
#[cfg(any(test, feature = "_fuzz"))]
#[doc(hidden)]
pub mod fuzz;
pub mod generated;
pub mod images;
pub mod layers;
#[cfg(feature = "local")]
pub mod local;
mod macros;
pub mod remote;
mod retry;
mod setters;
#[cfg(feature = "testing")]
pub mod testing;
mod timer;
mod validate;
mod values;

pub use backend::{Backend, Cancellation};
pub use client::Client;
pub use error::{Error, ErrorKind};
pub use generated::stable_diffusion_3_5_medium;
pub use generated::stable_diffusion_3_5_medium::output_format::{Avif, Gif, Jpeg, Png, Webp};
pub use generated::stable_diffusion_3_5_medium::providers;
pub use images::{AspectRatio, Input, OutputFormat, Resolution, ResponseFormat, Sampling, Size, SkipLayerGuidance};
pub use images::{Hosted, Image, Images, Inline};
pub use retry::RetryPolicy;

/// Compiles the examples of the README.
#[cfg(all(doctest, feature = "local"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the examples of the guide to the remote backend.
#[cfg(doctest)]
#[doc = include_str!("../docs/remote.md")]
struct RemoteGuide;

/// Compiles the examples of the guide to the local backend.
#[cfg(all(doctest, feature = "local"))]
#[doc = include_str!("../docs/local.md")]
struct LocalGuide;

// Generated code uses the path `::lumenfall`, here and in a user's crate.
extern crate self as lumenfall;
