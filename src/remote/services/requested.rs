//! The comparison of generated images with the request.

use crate::backend::{Content, ImageData, Metadata, Options, Output};
use crate::values::{OutputFormat, Size, dimensions};

/// The properties that a request asks for.
pub(crate) struct Requested {
    format: Option<OutputFormat>,
    /// The size in pixels.
    size: Option<(u32, u32)>,
}

impl Requested {
    pub(crate) fn of(options: &Options) -> Self {
        let size = match options.size {
            Some(Size::Pixels { width, height }) => Some((width, height)),
            Some(Size::Ratio(_)) | None => None,
        };
        Self { format: options.output_format, size }
    }

    /// Adds a warning for each property in which images differ from the request.
    pub(crate) fn compare(&self, output: &mut Output) {
        let Output { images, metadata } = output;
        let formats = self.format.and_then(|requested| {
            let others = images.iter().filter_map(|image| format(image, metadata)).filter(|found| *found != requested);
            warning("format", &requested.to_string(), &others.map(|found| found.to_string()).collect::<Vec<_>>())
        });
        let sizes = self.size.and_then(|requested| {
            let others = images.iter().filter_map(|image| size(image, metadata)).filter(|found| *found != requested);
            let text = |(width, height)| format!("{width}x{height}");
            warning("size", &text(requested), &others.map(text).collect::<Vec<_>>())
        });
        metadata.warnings.extend([formats, sizes].into_iter().flatten());
    }
}

/// Returns the format of the bytes, or the reported one of an image that has a URL.
fn format(image: &ImageData, metadata: &Metadata) -> Option<OutputFormat> {
    match &image.content {
        Content::Bytes(bytes) => OutputFormat::of(bytes),
        Content::Url(_) | Content::Unfetched(_) => metadata.output_format,
    }
}

/// Returns the size of the bytes, or the reported one of an image that has a URL.
fn size(image: &ImageData, metadata: &Metadata) -> Option<(u32, u32)> {
    match (&image.content, metadata.size) {
        (Content::Bytes(bytes), _) => dimensions(bytes),
        (Content::Url(_) | Content::Unfetched(_), Some(Size::Pixels { width, height })) => Some((width, height)),
        (Content::Url(_) | Content::Unfetched(_), _) => None,
    }
}

/// `found` are the values of the images that differ.
fn warning(property: &str, requested: &str, found: &[String]) -> Option<String> {
    let first = found.first()?;
    let count = found.len();
    let images = if count == 1 { "1 image has".to_owned() } else { format!("{count} images have") };
    Some(format!("{images} the {property} {first}; the request asked for {requested}"))
}
