//! The table of servers: under which names and where each of them reads the parameters.
//!
//! `docs/servers.md` shows the table to users; a test compares both.

use super::ImageField;
use crate::backend::Capabilities;
use crate::values::OutputFormat::{self, Jpeg, Png, Webp};

/// How a server reads the parameters of a request.
#[derive(Clone, Debug)]
pub(crate) struct Preset {
    /// The name for configurations.
    pub(crate) id: &'static str,
    /// The display name.
    pub(crate) name: &'static str,
    /// The usual base URL.
    pub(crate) base_url: &'static str,
    pub(crate) generation: Parameters,
    /// An edit without a mask. `Err` is the reason why the server has none.
    pub(crate) edit: Result<Edit, &'static str>,
    /// An edit with a mask.
    pub(crate) masked_edit: Result<(Edit, Mask), &'static str>,
    pub(crate) response_format: ResponseFormats,
    pub(crate) size: SizeForm,
    /// Whether a prefix of the model selects a provider.
    pub(crate) providers: bool,
    pub(crate) max_n: Option<u32>,
}

impl Preset {
    /// Returns what one of the modes supports, without estimates.
    pub(crate) fn capabilities(&self) -> Capabilities {
        let edits = [self.edit.as_ref().ok(), self.masked_edit.as_ref().ok().map(|(edit, _)| edit)];
        let edits: Vec<&Edit> = edits.into_iter().flatten().collect();
        let modes = || edits.iter().map(|edit| &edit.parameters).chain([&self.generation]);
        let is_supported = |control: &&str| modes().any(|parameters| parameters.supports(control));
        Capabilities {
            generate: true,
            edit: !edits.is_empty(),
            mask: self.masked_edit.is_ok(),
            urls: true,
            output_formats: OutputFormat::ALL
                .into_iter()
                .filter(|format| modes().any(|parameters| parameters.output_formats.contains(format)))
                .collect(),
            max_input_images: edits
                .iter()
                .map(|edit| edit.max_images)
                .collect::<Option<Vec<_>>>()
                .and_then(|all| all.into_iter().max()),
            controls: Capabilities::ALL_CONTROLS.into_iter().filter(is_supported).collect(),
            ..Capabilities::none()
        }
    }
}

/// How the parameters of one mode are sent.
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    pub(crate) seed: Control,
    pub(crate) steps: Control,
    pub(crate) guidance: Control,
    pub(crate) negative_prompt: Control,
    pub(crate) strength: Control,
    pub(crate) output_formats: &'static [OutputFormat],
    /// Other parameters that the server does not support, each with the reason.
    pub(crate) refused: &'static [(&'static str, &'static str)],
}

impl Parameters {
    /// Returns where a control goes, or `None` if the parameter is not a control.
    pub(crate) fn control(&self, name: &str) -> Option<Control> {
        let Self { seed, steps, guidance, negative_prompt, strength, output_formats: _, refused: _ } = self;
        match name {
            "seed" => Some(*seed),
            "steps" => Some(*steps),
            "guidance" => Some(*guidance),
            "negative_prompt" => Some(*negative_prompt),
            "strength" => Some(*strength),
            "skip_layer_guidance" => Some(Control::Refused("only the local backend (`Client::local`) supports it")),
            _ => None,
        }
    }

    fn supports(&self, control: &str) -> bool {
        self.control(control).is_some_and(|control| !matches!(control, Control::Refused(_)))
    }
}

/// Where a control goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    /// A field with the name that the model's schema uses.
    SchemaField,
    /// A field with this name.
    Field(&'static str),
    /// The JSON between the tags `sd_cpp_extra_args` in the prompt, at this path.
    ExtraArgs(&'static [&'static str]),
    /// The part of the prompt after `|`.
    AfterBar,
    /// The server does not support the control, for this reason.
    Refused(&'static str),
}

/// How an edit is sent.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    /// The path below the base URL.
    pub(crate) path: &'static [&'static str],
    pub(crate) images: Images,
    pub(crate) max_images: Option<u32>,
    pub(crate) parameters: Parameters,
}

/// Where the images of an edit go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Images {
    /// File fields of a form.
    Form(ImageField),
    /// A list of base64 texts in this field of a JSON body.
    Json(&'static str),
}

/// The mask's form field, and which of its pixels mark the area to change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    pub(crate) field: &'static str,
    pub(crate) marks: Marks,
}

/// The pixels of a mask that mark the area to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    Transparent,
    White,
}

/// The server's values of `response_format`. `None` if it must not be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseFormats {
    pub(crate) url: Option<&'static str>,
    pub(crate) b64_json: Option<&'static str>,
}

impl ResponseFormats {
    pub(crate) const BOTH: Self = Self { url: Some("url"), b64_json: Some("b64_json") };
    pub(crate) const NONE: Self = Self { url: None, b64_json: None };
    const ONLY_BYTES: Self = Self { url: None, ..Self::BOTH };
}

/// How the size of an image is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SizeForm {
    /// `size`, `aspect_ratio` and `resolution`, as they are.
    Any,
    /// `size` in pixels only.
    Pixels,
    /// `width` and `height`.
    WidthAndHeight,
}

use Control::{AfterBar, ExtraArgs, Field, Refused, SchemaField};

const IGNORES: &str = "the server ignores it";
const REJECTS: &str = "the server rejects it";
const PNG_ONLY: (&str, &str) = ("output_compression", "the server writes PNG only");

const ALL_FORMATS: &[OutputFormat] = &OutputFormat::ALL;
const COMMON_FORMATS: &[OutputFormat] = &[Png, Jpeg, Webp];

/// The parameters of the gateway, which passes controls to the provider.
const PASSED: Parameters = Parameters {
    seed: Field("seed"),
    steps: SchemaField,
    guidance: SchemaField,
    negative_prompt: Field("negative_prompt"),
    strength: Field("strength"),
    output_formats: ALL_FORMATS,
    refused: &[],
};

/// The parameters of a server that uses the names of diffusers.
const DIFFUSERS: Parameters = Parameters {
    steps: Field("num_inference_steps"),
    guidance: Field("guidance_scale"),
    output_formats: COMMON_FORMATS,
    ..PASSED
};

const fn without_controls(reason: &'static str) -> Parameters {
    let refused = Refused(reason);
    Parameters {
        seed: refused,
        steps: refused,
        guidance: refused,
        negative_prompt: refused,
        strength: refused,
        ..DIFFUSERS
    }
}

const SD_CPP: Parameters = Parameters {
    seed: ExtraArgs(&["seed"]),
    steps: ExtraArgs(&["sample_params", "sample_steps"]),
    guidance: ExtraArgs(&["sample_params", "guidance", "txt_cfg"]),
    negative_prompt: ExtraArgs(&["negative_prompt"]),
    strength: ExtraArgs(&["strength"]),
    ..DIFFUSERS
};

const SG_LANG_PARAMETERS: Parameters = Parameters { strength: Refused(IGNORES), ..DIFFUSERS };

const LOCAL_AI_PARAMETERS: Parameters = Parameters {
    seed: Field("seed"),
    steps: Field("step"),
    guidance: Refused("the server reads it from the configuration of the model only"),
    negative_prompt: AfterBar,
    strength: Refused("the server always uses 0.75"),
    output_formats: &[Png],
    refused: &[PNG_ONLY],
};

const LOCAL_AI_INPAINTING: Parameters = Parameters {
    seed: Refused("the server has no field for it in inpainting"),
    steps: Field("steps"),
    negative_prompt: Refused("the server has no field for it in inpainting"),
    ..LOCAL_AI_PARAMETERS
};

const KOBOLD_CPP_PARAMETERS: Parameters = Parameters {
    seed: Field("seed"),
    steps: Field("steps"),
    guidance: Field("cfg_scale"),
    negative_prompt: Field("negative_prompt"),
    strength: Field("denoising_strength"),
    output_formats: &[Png],
    refused: &[PNG_ONLY],
};

const TOGETHER_PARAMETERS: Parameters =
    Parameters { steps: Field("steps"), strength: Refused(REJECTS), output_formats: &[Jpeg, Png], ..DIFFUSERS };

const DEEP_INFRA_PARAMETERS: Parameters =
    Parameters { output_formats: &[], refused: &[("output_compression", IGNORES)], ..DIFFUSERS };

const LITE_LLM_EDIT: Parameters = Parameters {
    output_formats: &[],
    refused: &[("output_compression", "the server does not pass it on in edits")],
    ..without_controls("the server does not pass it on in edits")
};

const fn form(field: ImageField, parameters: Parameters) -> Edit {
    Edit { path: &["images", "edits"], images: Images::Form(field), max_images: None, parameters }
}

/// An edit as a generation whose JSON contains one image.
const fn json(field: &'static str, parameters: Parameters) -> Edit {
    Edit { path: &["images", "generations"], images: Images::Json(field), max_images: Some(1), parameters }
}

const TRANSPARENT: Mask = Mask { field: "mask", marks: Marks::Transparent };
const WHITE: Mask = Mask { field: "mask", marks: Marks::White };

pub(crate) const GATEWAY: Preset = Preset {
    id: "gateway",
    name: "the gateway",
    base_url: super::DEFAULT_BASE_URL,
    generation: PASSED,
    edit: Ok(form(ImageField::ByCount, PASSED)),
    masked_edit: Ok((form(ImageField::ByCount, PASSED), TRANSPARENT)),
    response_format: ResponseFormats::BOTH,
    size: SizeForm::Any,
    providers: true,
    max_n: None,
};

pub(crate) static VLLM_OMNI: Preset = Preset {
    id: "vllm-omni",
    name: "vLLM-Omni",
    base_url: "http://127.0.0.1:8000/v1",
    generation: Parameters { refused: &[("output_compression", "the server ignores it in generations")], ..DIFFUSERS },
    edit: Ok(form(ImageField::ByCount, DIFFUSERS)),
    masked_edit: Ok((form(ImageField::ByCount, DIFFUSERS), Mask { field: "mask_image", ..WHITE })),
    response_format: ResponseFormats::ONLY_BYTES,
    size: SizeForm::Pixels,
    providers: false,
    max_n: Some(10),
};

pub(crate) static SG_LANG: Preset = Preset {
    id: "sglang",
    name: "SGLang",
    base_url: "http://127.0.0.1:30000/v1",
    generation: SG_LANG_PARAMETERS,
    edit: Ok(form(ImageField::ByCount, SG_LANG_PARAMETERS)),
    masked_edit: Err(IGNORES),
    size: SizeForm::Pixels,
    providers: false,
    max_n: Some(10),
    ..GATEWAY
};

pub(crate) static LOCAL_AI: Preset = Preset {
    id: "localai",
    name: "LocalAI",
    base_url: "http://127.0.0.1:8080/v1",
    generation: LOCAL_AI_PARAMETERS,
    edit: Ok(json("files", LOCAL_AI_PARAMETERS)),
    masked_edit: Ok((
        Edit { path: &["images", "inpainting"], max_images: Some(1), ..form(ImageField::Image, LOCAL_AI_INPAINTING) },
        WHITE,
    )),
    size: SizeForm::Pixels,
    providers: false,
    ..GATEWAY
};

pub(crate) static STABLE_DIFFUSION_CPP: Preset = Preset {
    id: "stable-diffusion.cpp",
    name: "stable-diffusion.cpp",
    base_url: "http://127.0.0.1:1234/v1",
    generation: SD_CPP,
    edit: Ok(form(ImageField::ImageArray, Parameters { output_formats: &[Png, Jpeg], ..SD_CPP })),
    masked_edit: Ok((form(ImageField::ImageArray, Parameters { output_formats: &[Png, Jpeg], ..SD_CPP }), WHITE)),
    response_format: ResponseFormats::NONE,
    size: SizeForm::Pixels,
    providers: false,
    ..GATEWAY
};

pub(crate) static KOBOLD_CPP: Preset = Preset {
    id: "koboldcpp",
    name: "koboldcpp",
    base_url: "http://127.0.0.1:5001/v1",
    generation: KOBOLD_CPP_PARAMETERS,
    edit: Ok(json("init_images", KOBOLD_CPP_PARAMETERS)),
    masked_edit: Err(IGNORES),
    response_format: ResponseFormats::NONE,
    size: SizeForm::Pixels,
    providers: false,
    max_n: Some(1),
};

pub(crate) static TOGETHER: Preset = Preset {
    id: "together",
    name: "Together AI",
    base_url: "https://api.together.ai/v1",
    generation: TOGETHER_PARAMETERS,
    edit: Err("the server has no image edits"),
    masked_edit: Err("the server has no image edits"),
    response_format: ResponseFormats { b64_json: Some("base64"), ..ResponseFormats::BOTH },
    size: SizeForm::WidthAndHeight,
    providers: false,
    ..GATEWAY
};

pub(crate) static DEEP_INFRA: Preset = Preset {
    id: "deepinfra",
    name: "DeepInfra",
    base_url: "https://api.deepinfra.com/v1/openai",
    generation: DEEP_INFRA_PARAMETERS,
    edit: Ok(form(ImageField::Image, DEEP_INFRA_PARAMETERS)),
    masked_edit: Ok((form(ImageField::Image, DEEP_INFRA_PARAMETERS), TRANSPARENT)),
    response_format: ResponseFormats::ONLY_BYTES,
    size: SizeForm::Pixels,
    providers: false,
    ..GATEWAY
};

pub(crate) static LITE_LLM: Preset = Preset {
    id: "litellm",
    name: "LiteLLM",
    base_url: "http://127.0.0.1:4000/v1",
    generation: Parameters { strength: Refused("it is a parameter of edits"), ..PASSED },
    edit: Ok(form(ImageField::ByCount, LITE_LLM_EDIT)),
    masked_edit: Ok((form(ImageField::ByCount, LITE_LLM_EDIT), TRANSPARENT)),
    // It rejects the field for models that it does not know, and passes on both forms of the response.
    response_format: ResponseFormats::NONE,
    ..GATEWAY
};

pub(crate) static OPEN_AI: Preset = Preset {
    id: "openai",
    name: "OpenAI",
    base_url: "https://api.openai.com/v1",
    generation: without_controls(REJECTS),
    edit: Ok(Edit { max_images: Some(16), ..form(ImageField::ByCount, without_controls(REJECTS)) }),
    masked_edit: Ok((
        Edit { max_images: Some(16), ..form(ImageField::ByCount, without_controls(REJECTS)) },
        TRANSPARENT,
    )),
    response_format: ResponseFormats::NONE,
    size: SizeForm::Pixels,
    providers: false,
    ..GATEWAY
};
