//! The library that generated builders use: schemas as data, their checks, and requests that are ready to send.

pub(crate) mod check;
mod choice;
mod controls;
mod draft;
mod from_map;
mod inputs;
mod literal;
mod model;
mod price;
mod schema;
mod shared;
mod spec;
mod states;
mod text;

#[doc(hidden)]
pub use choice::choice;
pub use controls::CONTROLS;
pub use draft::Draft;
pub use inputs::{Inputs, IntoInput};
#[doc(hidden)]
pub use literal::{aspect_ratio, integer_i64, integer_u32, integer_u64, number, resolution, single, size, text};
pub use model::Model;
pub use schema::{Kind, Mode, Parameter, Per, Presence, Price, Provider, Requirement, Schema};
#[doc(hidden)]
pub use serde;
pub use serde_json::Value;
pub use spec::{Spec, View};
pub use states::{Excluded, Set, Unset};
pub use text::Text;
