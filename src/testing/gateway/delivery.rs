//! The response with the images: one JSON object, or server-sent events.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::account::Received;
use super::http::Reply;
use crate::images::OutputFormat;
use crate::testing::pixel::pixel;

/// The signature that the URL of an image must have.
pub(super) const SIGNATURE: &str = "lmnfl_mock_signature";

/// Removes the parameters of streaming. Returns the number of partial images if the request asks for a stream.
pub(super) fn take_stream(fields: &mut Map<String, Value>) -> Result<Option<u32>, Reply> {
    // The fields of a form are text.
    let mut take = |name| fields.remove(name).map(|value| value.as_str().map_or(value.to_string(), str::to_owned));
    let (stream, partial_images) = (take("stream"), take("partial_images"));
    let partial_images = partial_images.map_or(Ok(0), |number| number.parse());
    let partial_images = partial_images.ok().filter(|number| *number <= 3);
    let partial_images = partial_images.ok_or_else(|| Reply::invalid("`partial_images` must be 0 to 3"))?;
    Ok((stream.as_deref() == Some("true")).then_some(partial_images))
}

/// The images of a request and their metadata.
pub(super) struct Delivery<'a> {
    pub(super) received: &'a Received,
    pub(super) address: SocketAddr,
    pub(super) format: OutputFormat,
    pub(super) count: u32,
    /// Whether the images are returned as bytes, or else as URLs.
    pub(super) bytes: bool,
    pub(super) prompt: Option<String>,
    pub(super) metadata: Value,
}

impl Delivery<'_> {
    /// Returns all images in one JSON object.
    pub(super) fn json(&self) -> Reply {
        let data: Vec<_> = (0..self.count).map(|index| self.image(index)).collect();
        Reply::json(200, &json!({ "created": now(), "data": data, "metadata": self.metadata }))
    }

    fn image(&self, index: u32) -> Value {
        let Self { received, address, format, .. } = self;
        let mut image = Map::new();
        if self.bytes {
            image.insert("b64_json".into(), base64(*format).into());
        } else {
            let file = format!("{}/{index}.{}", received.id, <&str>::from(*format));
            image.insert("url".into(), format!("http://{address}/files/{file}?signature={SIGNATURE}").into());
        }
        image.extend(self.prompt.as_deref().map(|prompt| ("revised_prompt".into(), prompt.into())));
        image.into()
    }

    /// Returns the partial images and the image as server-sent events, which contain bytes only.
    pub(super) fn events(&self, partial_images: u32) -> Reply {
        let mode = if self.received.endpoint == "edits" { "image_edit" } else { "image_generation" };
        let format = <&str>::from(self.format);
        let event = |kind: &str, fields: Value| {
            let mut event = json!({ "type": format!("{mode}.{kind}"), "created_at": now(), "output_format": format });
            if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
                event.insert("b64_json".into(), base64(self.format).into());
                event.extend(fields);
            }
            format!("event: {mode}.{kind}\ndata: {event}\n\n")
        };
        let partial = |index| event("partial_image", json!({ "partial_image_index": index }));
        let image = |_| {
            let usage = json!({ "input_tokens": 0, "output_tokens": 0, "total_tokens": 0 });
            let completed = json!({ "usage": usage, "metadata": self.metadata, "revised_prompt": self.prompt });
            (0..partial_images).map(partial).collect::<String>() + &event("completed", completed)
        };
        let body: String = (0..self.count).map(image).collect();
        Reply::new(200, body).header("content-type", "text/event-stream")
    }
}

fn base64(format: OutputFormat) -> String {
    base64_simd::STANDARD.encode_to_string(pixel(format))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
