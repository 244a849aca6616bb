//! The kinds of servers that a [`Remote`](super::Remote) backend supports.

use std::fmt;
use std::str::FromStr;

use super::presets::{self, Preset};
use crate::error::{Error, ErrorKind};

/// The kind of an OpenAI-compatible server, which decides under which names and where parameters are sent.
///
/// A parameter that the server ignores or rejects is an error of kind [`Unsupported`](ErrorKind::Unsupported) that names the
/// parameter and the server. Set it with [`RemoteBuilder::server`](super::RemoteBuilder::server).
///
/// ```
/// use lumenfall::remote::Server;
///
/// assert_eq!("vllm-omni".parse::<Server>()?, Server::VllmOmni);
/// assert_eq!(Server::VllmOmni.to_string(), "vLLM-Omni");
/// # Ok::<(), lumenfall::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Server {
    /// The Lumenfall gateway, and servers that accept the same parameters.
    #[default]
    Gateway,
    /// vLLM-Omni.
    VllmOmni,
    /// SGLang's server for diffusion models.
    SgLang,
    /// LocalAI.
    LocalAi,
    /// `sd-server` of stable-diffusion.cpp.
    StableDiffusionCpp,
    /// koboldcpp.
    KoboldCpp,
    /// Together AI.
    Together,
    /// DeepInfra.
    DeepInfra,
    /// The proxy of LiteLLM.
    LiteLlm,
    /// OpenAI.
    OpenAi,
}

impl Server {
    /// All kinds of servers.
    pub const ALL: [Self; 10] = [
        Self::Gateway,
        Self::VllmOmni,
        Self::SgLang,
        Self::LocalAi,
        Self::StableDiffusionCpp,
        Self::KoboldCpp,
        Self::Together,
        Self::DeepInfra,
        Self::LiteLlm,
        Self::OpenAi,
    ];

    /// Returns the name for configuration files and command lines, such as `vllm-omni`. [`FromStr`] reads it.
    pub fn id(self) -> &'static str {
        self.preset().id
    }

    /// Returns the usual base URL, such as `http://127.0.0.1:8000/v1`.
    pub fn usual_base_url(self) -> &'static str {
        self.preset().base_url
    }

    pub(crate) fn preset(self) -> &'static Preset {
        match self {
            Self::Gateway => &presets::GATEWAY,
            Self::VllmOmni => &presets::VLLM_OMNI,
            Self::SgLang => &presets::SG_LANG,
            Self::LocalAi => &presets::LOCAL_AI,
            Self::StableDiffusionCpp => &presets::STABLE_DIFFUSION_CPP,
            Self::KoboldCpp => &presets::KOBOLD_CPP,
            Self::Together => &presets::TOGETHER,
            Self::DeepInfra => &presets::DEEP_INFRA,
            Self::LiteLlm => &presets::LITE_LLM,
            Self::OpenAi => &presets::OPEN_AI,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.preset().name)
    }
}

impl FromStr for Server {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|server| server.id() == id).ok_or_else(|| {
            let ids: Vec<_> = Self::ALL.into_iter().map(Self::id).collect();
            let message = format!("the server is {id:?}; it must be one of {}", ids.join(", "));
            Error::new(ErrorKind::Configuration, message).with_parameter("server")
        })
    }
}

/// The name of the form field in which an edit sends its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageField {
    /// `image` for a single image, `image[]` for each of several.
    ByCount,
    /// `image` for each image.
    Image,
    /// `image[]` for each image.
    ImageArray,
}

impl ImageField {
    pub(crate) fn name(self, images: usize) -> &'static str {
        match self {
            Self::ByCount if images == 1 => "image",
            Self::ByCount | Self::ImageArray => "image[]",
            Self::Image => "image",
        }
    }
}
