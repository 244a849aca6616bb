//! A model's parameter schema as data, for the checks at run time.

use crate::backend::ModelApi;

/// The parameters of a model and their rules. The code generator writes one `static` per model.
#[derive(Debug)]
pub struct Schema {
    /// The model's id, such as `stable-diffusion-3.5-medium`.
    pub id: &'static str,
    /// The model's display name, such as `Stable Diffusion 3.5 Medium`.
    pub name: &'static str,
    /// The modes that the model supports.
    pub modes: &'static [Mode],
    /// The largest width and height in pixels.
    pub max_size: Option<(u32, u32)>,
    /// The providers that run the model.
    pub providers: &'static [Provider],
    /// The model's parameters.
    pub parameters: &'static [Parameter],
    /// The schema in JSON.
    pub json: &'static str,
}

impl Schema {
    /// Returns the parameter with this name.
    pub fn parameter(&self, name: &str) -> Option<&'static Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }

    /// Returns the facts that a remote backend needs to send a request for this model. The request builders set them;
    /// a request without a builder sets them in its [`RequestContext`](crate::backend::RequestContext).
    pub fn api(&self) -> ModelApi {
        let mut api = ModelApi::default();
        api.steps = self.name_of("steps", api.steps);
        api.guidance = self.name_of("guidance", api.guidance);
        api.optional_image = self.parameter("image").is_some_and(|image| image.image_edit == Presence::Optional);
        api
    }

    /// Returns the provider with this slug.
    pub fn provider(&self, slug: &str) -> Option<&'static Provider> {
        self.providers.iter().find(|provider| provider.slug == slug)
    }

    /// Returns the providers that run the model in `mode`.
    pub fn providers_for(&self, mode: Mode) -> impl Iterator<Item = &'static Provider> {
        self.providers.iter().filter(move |provider| provider.modes.contains(&mode))
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Generates images from a prompt.
    TextToImage,
    /// Edits images.
    ImageEdit,
}

impl Mode {
    /// Returns the mode in words: "text to image" or "image edit".
    pub fn words(self) -> &'static str {
        match self {
            Self::TextToImage => "text to image",
            Self::ImageEdit => "image edit",
        }
    }
}

/// A service that runs a model.
#[derive(Debug)]
pub struct Provider {
    /// The name in the API, such as `fal`.
    pub slug: &'static str,
    /// The display name, such as `fal.ai`.
    pub name: &'static str,
    /// The provider's own id of the model.
    pub model: Option<&'static str>,
    /// The modes in which the provider runs the model.
    pub modes: &'static [Mode],
    /// The published price.
    pub price: Option<Price>,
}

/// A provider's published price.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    /// The amount in US dollars.
    pub usd: f64,
    /// The unit that the amount applies to.
    pub per: Per,
}

/// The unit of a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Per {
    /// One image.
    Image,
    /// One million pixels of one image.
    Megapixel,
}

/// A parameter and its rules.
#[derive(Debug)]
pub struct Parameter {
    /// The name in the OpenAI-compatible API.
    pub name: &'static str,
    /// A description, on one line and without its full stop.
    pub description: &'static str,
    /// The type and the range of the values.
    pub kind: Kind,
    /// The value that the service uses if a request does not set the parameter, as text. `None` if the schema has none.
    pub default: Option<&'static str>,
    /// The media types of a file, such as `image/png`; empty if the schema lists none.
    pub media_types: &'static [&'static str],
    /// Whether text to image has the parameter.
    pub text_to_image: Presence,
    /// Whether image edit has the parameter.
    pub image_edit: Presence,
    /// The parameters that exclude this one and are excluded by it: a request that sets two of them is rejected.
    pub excludes: &'static [&'static str],
    /// The values of other parameters that a request must contain if it sets this parameter.
    pub requires: &'static [Requirement],
}

impl Parameter {
    /// Returns whether `mode` has the parameter.
    pub fn presence(&self, mode: Mode) -> Presence {
        match mode {
            Mode::TextToImage => self.text_to_image,
            Mode::ImageEdit => self.image_edit,
        }
    }
}

/// Whether a mode has a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The mode does not have the parameter.
    Absent,
    /// A request may set the parameter.
    Optional,
    /// A request must set the parameter.
    Required,
}

/// The type and the range of a parameter's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Text.
    Text {
        /// The maximum number of characters.
        max_length: Option<usize>,
    },
    /// One of these values.
    Choice(&'static [&'static str]),
    /// Pixels or an aspect ratio.
    Size,
    /// An aspect ratio.
    AspectRatio,
    /// A resolution tier.
    Resolution,
    /// An integer.
    Integer {
        /// The smallest value.
        minimum: i128,
        /// The largest value.
        maximum: i128,
    },
    /// A number.
    Number {
        /// The smallest value.
        minimum: f64,
        /// The largest value.
        maximum: f64,
    },
    /// `true` or `false`.
    Boolean,
    /// A file.
    File {
        /// Whether a request may contain several files.
        repeatable: bool,
    },
}

/// Values of another parameter that a parameter requires.
#[derive(Debug)]
pub struct Requirement {
    /// The other parameter.
    pub parameter: &'static str,
    /// The allowed values of the other parameter.
    pub values: &'static [&'static str],
}
