//! What the generated builders stand on: schemas as data, their checks, and requests on their way.

pub(crate) mod check;
mod draft;
mod drift;
mod inputs;
mod model;
mod price;
mod schema;
mod shared;
mod spec;
mod states;
mod values;
mod violation;

pub use draft::Draft;
pub use drift::{Change, Subject, changes, served_schema};
pub use inputs::Inputs;
pub use model::Model;
pub use schema::{Kind, Mode, Parameter, Per, Presence, Price, Provider, Requirement, Schema};
pub use serde_json::Value;
pub use spec::Spec;
pub use states::{Excluded, Given, StrengthInTextToImage, Unset};
#[doc(hidden)]
pub use values::{aspect_ratio, integer, number, resolution, size, text};
pub use violation::{Rule, Violation};
