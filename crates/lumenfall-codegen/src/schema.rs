//! The JSON form of a schema.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A model. Unknown keys are rejected, because a misspelled `maximum` would otherwise remove a limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schema {
    pub id: String,
    pub name: String,
    pub creator: Option<String>,
    #[serde(rename = "family")]
    pub _family: Option<String>,
    pub modes: Vec<Mode>,
    pub max_resolution: Option<MaxResolution>,
    #[serde(default)]
    pub providers: Vec<Provider>,
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    TextToImage,
    ImageEdit,
}

/// The names of a mode in a schema, in messages, and in generated code.
pub(crate) struct ModeNames {
    pub key: &'static str,
    pub words: &'static str,
    pub method: &'static str,
    pub builder: &'static str,
    pub spec: &'static str,
}

impl Mode {
    pub(crate) fn names(self) -> ModeNames {
        let (key, words, method, builder, spec) = match self {
            Self::TextToImage => ("text_to_image", "text to image", "generate", "Generate", "GenerateSpec"),
            Self::ImageEdit => ("image_edit", "image edit", "edit", "Edit", "EditSpec"),
        };
        ModeNames { key, words, method, builder, spec }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaxResolution {
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Provider {
    pub slug: String,
    pub name: String,
    pub model: Option<String>,
    pub modes: Vec<Mode>,
    pub price: Option<Price>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    pub usd: f64,
    pub per: Per,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Per {
    Image,
    Megapixel,
}

impl Per {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Megapixel => "megapixel",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameter {
    pub name: String,
    #[serde(rename = "group")]
    pub _group: Option<String>,
    #[serde(rename = "type")]
    pub kind: Type,
    pub format: Option<Format>,
    #[serde(default)]
    pub repeatable: bool,
    pub description: String,
    #[serde(default)]
    pub media_types: Vec<String>,
    #[serde(rename = "enum")]
    pub choices: Option<Vec<String>>,
    pub default: Option<serde_json::Value>,
    pub max_length: Option<usize>,
    pub minimum: Option<serde_json::Number>,
    pub maximum: Option<serde_json::Number>,
    #[serde(default)]
    pub overrides: Vec<String>,
    #[serde(default)]
    pub requires: BTreeMap<String, Vec<String>>,
    #[serde(deserialize_with = "modes")]
    pub modes: BTreeMap<Mode, Need>,
}

/// Reads the modes of a parameter as a structure, because the paths in error messages do not name the keys of a map.
fn modes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Mode, Need>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Modes {
        text_to_image: Option<Need>,
        image_edit: Option<Need>,
    }
    let Modes { text_to_image, image_edit } = Modes::deserialize(deserializer)?;
    let modes = [(Mode::TextToImage, text_to_image), (Mode::ImageEdit, image_edit)];
    Ok(modes.into_iter().filter_map(|(mode, need)| Some((mode, need?))).collect())
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Type {
    String,
    Integer,
    Number,
    Boolean,
    File,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    Size,
    AspectRatio,
    ResolutionTier,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Need {
    Required,
    Optional,
}
