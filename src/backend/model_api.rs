//! The facts of a model's schema that a remote backend needs.

/// The facts of a model's schema that a remote backend needs to send a request, besides the request itself.
///
/// The request builders set it from the schema; see [`Schema::api`](crate::images::typed::Schema::api).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModelApi {
    /// The model's name of [`Sampling::steps`](crate::Sampling::steps). The default is `num_inference_steps`.
    pub steps: &'static str,
    /// The model's name of [`Sampling::guidance`](crate::Sampling::guidance). The default is `guidance_scale`.
    pub guidance: &'static str,
    /// Whether an edit may have no image. The default is false.
    pub optional_image: bool,
}

impl Default for ModelApi {
    fn default() -> Self {
        Self { steps: "num_inference_steps", guidance: "guidance_scale", optional_image: false }
    }
}
