//! The path and the body of a request to an OpenAI-compatible server.

use serde_json::Value;

use super::fields::{Fields, Writer, unsupported};
use super::presets::{Edit, Images, Marks, Mask, Parameters, Preset, SizeForm};
use crate::backend::{EditSpec, GenerateSpec, ModelApi, Request};
use crate::error::{Error, ErrorKind};
use crate::images::typed::check;
use crate::remote::http::multipart::FileForm;
use crate::remote::http::transport::Payload;
use crate::values::Input;

const GENERATIONS: &[&str] = &["images", "generations"];

/// A request whose parameters have their names for the server, and whose files are not opened yet.
pub(crate) struct Encoded {
    /// The path below the base URL.
    pub(crate) path: &'static [&'static str],
    fields: Fields,
    files: Files,
}

enum Files {
    None,
    Form { field: &'static str, images: Vec<Input>, mask: Option<(Input, Mask)> },
    Json { field: &'static str, images: Vec<Input> },
}

/// Gives the parameters of `request` the names that the server of `preset` expects, or rejects what it does not support.
pub(crate) fn encode(preset: &Preset, request: Request, model: ModelApi) -> Result<Encoded, Error> {
    check::check_every_model(&request)?;
    match request {
        Request::Generate(GenerateSpec { model: id, prompt, options }) => {
            // Servers of other models accept images in a generation. The spec has no field for them, so `extra` may contain them.
            let writer = writer(preset, &preset.generation, model, &["image", "mask"], Vec::new());
            let fields = writer.fields(id, Some(prompt), options)?;
            Ok(Encoded { path: GENERATIONS, fields, files: Files::None })
        }
        Request::Edit(spec) => encode_edit(preset, spec, model),
    }
}

fn encode_edit(preset: &Preset, spec: EditSpec, model: ModelApi) -> Result<Encoded, Error> {
    let EditSpec { model: id, images, mask, prompt, options } = spec;
    if images.is_empty() && !model.optional_image {
        let message = "an edit needs at least one image; provide it with `Input::path(..)` or `Input::bytes(..)`";
        return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("image"));
    }
    let (edit, mask) = match (mask, &preset.masked_edit, &preset.edit) {
        (Some(mask), Ok((edit, field)), _) => (edit, Some((mask, *field))),
        (Some(_), Err(reason), _) => return Err(unsupported(preset, "mask", reason)),
        (None, _, Ok(edit)) => (edit, None),
        (None, _, Err(reason)) => return Err(unsupported(preset, "image", reason)),
    };
    let Edit { path, images: place, max_images, parameters } = edit;
    if let Some(max) = max_images.filter(|max| images.len() > *max as usize) {
        let reason = format!("the request has {} images, and the server reads at most {max}", images.len());
        return Err(unsupported(preset, "image", &reason));
    }
    let mut reserved: Vec<_> = mask.iter().map(|(_, mask)| mask.field).collect();
    let files = match *place {
        Images::Form(field) => Files::Form { field: field.name(images.len()), images, mask },
        Images::Json(field) => {
            reserved.push(field);
            Files::Json { field, images }
        }
    };
    let fields = writer(preset, parameters, model, &[], reserved).fields(id, prompt, options)?;
    Ok(Encoded { path, fields, files })
}

fn writer<'a>(
    preset: &'a Preset,
    parameters: &'a Parameters,
    model: ModelApi,
    allowed_extra: &'static [&'static str],
    mut reserved: Vec<&'static str>,
) -> Writer<'a> {
    reserved.push("image[]");
    if preset.size == SizeForm::WidthAndHeight {
        reserved.extend(["width", "height"]);
    }
    Writer { preset, parameters, model, allowed_extra, reserved }
}

impl Encoded {
    /// Returns the body.
    pub(crate) async fn payload(self) -> Result<Payload, Error> {
        let mut fields = self.fields;
        match self.files {
            Files::None => Payload::json(&fields),
            Files::Form { field: image_field, images, mask } => {
                let (mask, mask_field) = match mask {
                    Some((mask, Mask { field, marks: Marks::Transparent })) => (Some(mask), field),
                    Some((mask, Mask { field, marks: Marks::White })) => (Some(opaque(&mask).await?), field),
                    None => (None, "mask"),
                };
                Ok(Payload::Form(FileForm { fields, image_field, images, mask_field, mask }))
            }
            Files::Json { field, images } => {
                let mut texts = Vec::new();
                for image in images {
                    texts.push(Value::from(base64_simd::STANDARD.encode_to_string(image.read().await?)));
                }
                fields.insert(field.to_owned(), texts.into());
                Payload::json(&fields)
            }
        }
    }
}

/// Returns a mask for a server that changes the white pixels. A mask with transparent pixels is meant for other servers, and
/// would change the wrong area.
async fn opaque(mask: &Input) -> Result<Input, Error> {
    let bytes = mask.read().await.map_err(|error| error.with_parameter("mask"))?;
    // The color types 4 and 6 of a PNG file have an alpha channel.
    if bytes.get(25).is_some_and(|color_type| matches!(color_type, 4 | 6)) {
        let message = "the mask has transparent pixels, but this server changes the white pixels of a mask; use a PNG without \
                       transparency, white where the image changes and black elsewhere";
        return Err(Error::new(ErrorKind::InvalidRequest, message).with_parameter("mask"));
    }
    Ok(Input::bytes(bytes))
}
