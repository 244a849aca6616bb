//! Pictures to files and back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use lumenfall_diffusion::{FileFormat, Picture};

fn gradient() -> Picture {
    let rgb = (0..48u32 * 32).flat_map(|i| [(i % 48 * 5) as u8, (i / 48 * 8) as u8, 90]).collect();
    Picture::from_rgb(48, 32, rgb).unwrap()
}

#[test]
fn lossless_formats_come_back_exactly() {
    let picture = gradient();
    for format in [FileFormat::Png, FileFormat::WebpLossless] {
        let file = picture.encode(format).unwrap();
        assert_eq!(Picture::decode(&file).unwrap(), picture, "{format:?}");
    }
}

#[test]
fn jpeg_comes_back_nearly_and_quality_counts() {
    let picture = gradient();
    let fine = picture.encode(FileFormat::Jpeg { quality: 95 }).unwrap();
    let coarse = picture.encode(FileFormat::Jpeg { quality: 10 }).unwrap();
    assert!(coarse.len() < fine.len());
    let back = Picture::decode(&fine).unwrap();
    let worst = back.rgb().iter().zip(picture.rgb()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst < 24, "{worst}");
}

#[test]
fn what_is_no_picture_is_refused() {
    for bytes in [&b""[..], b"not an image", b"\x89PNG\r\n\x1a\n"] {
        let message = Picture::decode(bytes).unwrap_err().to_string();
        assert!(message.ends_with("give a whole PNG, JPEG or WebP file"), "{message}");
    }
    let file = gradient().encode(FileFormat::Png).unwrap();
    assert!(Picture::decode(&file[..file.len() / 2]).is_err());
    assert!(Picture::from_rgb(0, 4, vec![]).is_err());
    assert!(Picture::from_rgb(4, 4, vec![0; 7]).is_err());
    assert!(Picture::from_rgb(u32::MAX, u32::MAX, vec![0; 3]).is_err());
}
