//! A model's parameter schema as data: what the run-time checks go by.

/// What a model takes. The generator writes one for each model.
#[derive(Debug)]
pub struct Schema {
    /// The model's id, such as `stable-diffusion-3.5-medium`.
    pub id: &'static str,
    /// The model's name, as people write it.
    pub name: &'static str,
    /// The modes it offers.
    pub modes: &'static [Mode],
    /// The largest width and height in pixels.
    pub max_size: Option<(u32, u32)>,
    /// Who runs it.
    pub providers: &'static [Provider],
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// The most characters of a prompt that is all a generation needs; `None` where it needs more or other than that.
    pub plain_prompt: Option<usize>,
    /// The schema as it was written, in JSON.
    pub json: &'static str,
}

impl Schema {
    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&'static Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// The provider of that slug.
    pub fn provider(&self, slug: &str) -> Option<&'static Provider> {
        self.providers.iter().find(|provider| provider.slug == slug)
    }
}

/// One of the two things a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Makes images from a prompt.
    TextToImage,
    /// Changes images.
    ImageEdit,
}

impl Mode {
    /// The mode in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::TextToImage => "text to image",
            Self::ImageEdit => "image edit",
        }
    }
}

/// Who runs a model.
#[derive(Debug)]
pub struct Provider {
    /// The name to pin it by, such as `fal`.
    pub slug: &'static str,
    /// The name as people write it, such as `fal.ai`.
    pub name: &'static str,
    /// Its own name of the model.
    pub model: Option<&'static str>,
    /// The modes it runs.
    pub modes: &'static [Mode],
    /// What it publishes as its price.
    pub price: Option<Price>,
}

/// What a provider charges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// US dollars.
    pub usd: f64,
    /// What they are for.
    pub per: Per,
}

/// What a price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Per {
    /// Each image.
    Image,
    /// Each million pixels of each image.
    Megapixel,
}

/// A parameter and its rules.
#[derive(Debug)]
pub struct Parameter {
    /// The name on the wire.
    pub name: &'static str,
    /// Which values it takes.
    pub kind: Kind,
    /// Its place in text to image.
    pub text_to_image: Presence,
    /// Its place in an image edit.
    pub image_edit: Presence,
    /// The parameters that it cannot be combined with, as it decides what they would.
    pub overrides: &'static [&'static str],
    /// The parameters that must have one of some values beside it.
    pub requires: &'static [Requirement],
}

impl Parameter {
    /// Its place in `mode`.
    pub fn presence(&self, mode: Mode) -> Presence {
        match mode {
            Mode::TextToImage => self.text_to_image,
            Mode::ImageEdit => self.image_edit,
        }
    }
}

/// Whether a mode takes a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It does not.
    Absent,
    /// It may be given.
    Optional,
    /// It must be given.
    Required,
}

/// Which values a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Text.
    Text {
        /// The largest number of characters.
        max_length: Option<usize>,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Pixels or an aspect ratio.
    Size,
    /// An aspect ratio.
    AspectRatio,
    /// A tier of output scale.
    Resolution,
    /// A whole number.
    Integer {
        /// The smallest.
        minimum: i128,
        /// The largest.
        maximum: i128,
    },
    /// A number.
    Number {
        /// The smallest.
        minimum: f64,
        /// The largest.
        maximum: f64,
    },
    /// Yes or no.
    Boolean,
    /// A file.
    File {
        /// Whether several can be given.
        repeatable: bool,
    },
}

/// What a parameter needs beside it.
#[derive(Debug)]
pub struct Requirement {
    /// The other parameter.
    pub parameter: &'static str,
    /// The values of which it must have one.
    pub values: &'static [&'static str],
}
