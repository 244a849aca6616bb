//! The controls of the diffusion process as parameters.

use super::{Kind, Parameter, Presence};

/// The controls of the diffusion process, the fields of [`Sampling`](crate::Sampling), for forms and other programs that
/// list parameters at run time.
///
/// They apply to every model whose schema does not list them: a backend honours a control or names it in an error of kind
/// [`Unsupported`](crate::ErrorKind::Unsupported).
pub static CONTROLS: [Parameter; 5] = [
    control("seed", "Seed of the initial noise", Kind::Integer { minimum: 0, maximum: u64::MAX as i128 }),
    control("steps", "Number of denoising steps", Kind::Integer { minimum: 1, maximum: u32::MAX as i128 }),
    control(
        "guidance",
        "Scale of classifier-free guidance; 1 turns guidance off",
        Kind::Number { minimum: 0.0, maximum: f32::MAX as f64 },
    ),
    control("negative_prompt", "Text that describes what the image must not show", Kind::Text { max_length: None }),
    Parameter {
        text_to_image: Presence::Absent,
        ..control(
            "strength",
            "How much an edit may change the image: above 0 (hardly) to 1 (completely)",
            Kind::Number { minimum: f32::MIN_POSITIVE as f64, maximum: 1.0 },
        )
    },
];

const fn control(name: &'static str, description: &'static str, kind: Kind) -> Parameter {
    Parameter {
        name,
        description,
        kind,
        default: None,
        media_types: &[],
        text_to_image: Presence::Optional,
        image_edit: Presence::Optional,
        excludes: &[],
        requires: &[],
    }
}
