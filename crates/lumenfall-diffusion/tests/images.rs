//! Images are encoded and decoded.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use lumenfall_diffusion::{FileFormat, RgbImage};

fn gradient() -> RgbImage {
    let pixels = (0..48u32 * 32).flat_map(|i| [(i % 48 * 5) as u8, (i / 48 * 8) as u8, 90]).collect();
    RgbImage::new(48, 32, pixels).unwrap()
}

#[test]
fn lossless_formats_preserve_every_pixel() {
    let image = gradient();
    for format in [FileFormat::Png, FileFormat::WebpLossless] {
        let file = image.encode(format).unwrap();
        assert_eq!(RgbImage::decode(&file).unwrap(), image, "{format:?}");
    }
}

#[test]
fn jpeg_preserves_colours_approximately_and_quality_determines_the_size() {
    let image = gradient();
    let fine = image.encode(FileFormat::Jpeg { quality: 95 }).unwrap();
    let coarse = image.encode(FileFormat::Jpeg { quality: 10 }).unwrap();
    assert!(coarse.len() < fine.len());
    let decoded = RgbImage::decode(&fine).unwrap();
    let worst = decoded.pixels().iter().zip(image.pixels()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst < 24, "{worst}");
}

#[test]
fn invalid_files_and_sizes_are_refused() {
    let png = gradient().encode(FileFormat::Png).unwrap();
    for bytes in [&b""[..], b"not an image", b"\x89PNG\r\n\x1a\n", &png[..png.len() / 2]] {
        let message = RgbImage::decode(bytes).unwrap_err().to_string();
        assert!(
            message.ends_with("provide a complete PNG, JPEG or WebP file of at most 100 million pixels"),
            "{message}"
        );
    }
    for (width, height, length) in [(0, 4, 0), (4, 4, 7), (u32::MAX, u32::MAX, 3)] {
        assert!(RgbImage::new(width, height, vec![0; length]).is_err());
    }
}
