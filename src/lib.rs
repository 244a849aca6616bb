//! Typed Rust SDK for making and editing images with Stable Diffusion 3.5 Medium.
//!
//! ```no_run
//! use lumenfall::{Client, Input, Webp, count, percent, size};
//!
//! # async fn run() -> Result<(), lumenfall::Error> {
//! let client = Client::from_env()?;
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
//! What the model's schema rules out does not compile, and the compiler says what to write instead:
//!
//! ```compile_fail
//! # use lumenfall::{Client, Png, percent};
//! # fn run(client: Client) {
//! client.images().generate("a lighthouse").output_format(Png).output_compression(percent!(80));
//! # }
//! ```
//!
//! Values known only at run time have checked twins: `try_n(n)?`, `try_size(size)?`, or the plain-data
//! [`GenerateSpec`](backend::GenerateSpec) with its `validate()`, which a builder becomes by `into_spec()`
//! and [`generate_spec`](stable_diffusion_3_5_medium::Requests::generate_spec) sends.

pub mod backend;
#[cfg(feature = "blocking")]
pub mod blocking;
mod client;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod generated;
pub mod images;
pub mod layers;
#[cfg(feature = "local")]
pub mod local;
pub mod remote;
mod retry;
#[cfg(feature = "testing")]
pub mod testing;

pub use backend::Backend;
pub use client::Client;
pub use error::{Error, ErrorKind};
pub use generated::stable_diffusion_3_5_medium;
pub use generated::stable_diffusion_3_5_medium::output_format::{Avif, Gif, Jpeg, Png, Webp};
pub use generated::stable_diffusion_3_5_medium::providers::{Fal, Replicate};
pub use images::{Address, Image, Images, Inline};
pub use images::{AspectRatio, Input, OutputFormat, Resolution, ResponseFormat, Sampling, Size, SkipLayerGuidance};
pub use retry::RetryPolicy;

/// What the README shows compiles.
#[cfg(all(doctest, feature = "local"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// And so does what the guide to the remote backend shows.
#[cfg(doctest)]
#[doc = include_str!("../docs/remote.md")]
struct RemoteGuide;

// Generated code names this crate by its own name, here as in a user's crate.
extern crate self as lumenfall;
