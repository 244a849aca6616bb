//! Images are encoded and decoded.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::fs;

use lumenfall_diffusion::{FileFormat, FileMetadata, RgbImage, read_metadata};
use safetensors::SafeTensors;

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
            message.ends_with("provide a complete PNG, JPEG, WebP or GIF file of at most 100 million pixels"),
            "{message}"
        );
    }
    for (width, height, length) in [(0, 4, 0), (4, 4, 7), (u32::MAX, u32::MAX, 3)] {
        assert!(RgbImage::new(width, height, vec![0; length]).is_err());
    }
}

#[test]
fn files_of_every_kind_have_the_same_pixels_as_with_pillow() {
    let data = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&data).unwrap();
    let tensor = |name: &str| tensors.tensor(name).unwrap();
    let mut failures = Vec::new();
    for (name, max_difference) in [
        ("rgb16.png", 0),
        ("rgba16.png", 0),
        ("gray16.png", 0),
        ("gray-alpha16.png", 0),
        ("interlaced.png", 0),
        ("rgba.png", 0),
        ("palette-alpha.png", 0),
        ("transparent-colour.png", 0),
        ("alpha.webp", 0),
        ("lossy.webp", 1),
        ("animated.gif", 0),
        ("transparent.gif", 0),
        // Decoders of JPEG files round differently.
        ("photo.jpg", 2),
        ("rgb.jpg", 2),
        ("cmyk.jpg", 2),
        ("cmyk-without-marker.jpg", 2),
        ("ycck.jpg", 3),
        ("profile-cmyk.jpg", 4),
        ("profile-p3.png", 1),
        ("profile-p3.jpg", 4),
        ("profile-p3.webp", 1),
        ("profile-gray.png", 1),
        ("profile-srgb.png", 0),
    ] {
        let expected = tensor(&format!("{name}/pixels"));
        let (image, alpha) = RgbImage::decode_with_alpha(tensor(&format!("{name}/file")).data()).unwrap();
        let size = [image.height() as usize, image.width() as usize, 3 + usize::from(alpha.is_some())];
        assert_eq!(expected.shape(), size, "{name}");
        let mut alpha = alpha.into_iter().flatten();
        let pixels = image.pixels().as_chunks::<3>().0.iter();
        let pixels: Vec<u8> = pixels.flat_map(|pixel| pixel.iter().copied().chain(alpha.next())).collect();
        let worst = pixels.iter().zip(expected.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        if worst > max_difference {
            failures.push((name, worst));
        }
    }
    assert_eq!(failures, [], "these are the largest differences");
}

#[test]
fn transparent_pixels_are_blended_with_white() {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 3, 1);
    encoder.set_color(png::ColorType::Rgba);
    let pixels = [0, 100, 200, 255, 0, 100, 200, 128, 0, 100, 200, 0];
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    assert_eq!(RgbImage::decode(&file).unwrap().pixels(), [0, 100, 200, 127, 177, 227, 255, 255, 255]);
}

#[test]
fn a_small_first_frame_of_an_animation_is_surrounded_by_transparent_pixels() {
    let mut file = Vec::new();
    let mut encoder = gif::Encoder::new(&mut file, 3, 2, &[9, 8, 7]).unwrap();
    let frame = gif::Frame { left: 1, top: 1, width: 1, height: 1, buffer: (&[0][..]).into(), ..gif::Frame::default() };
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    let (image, alpha) = RgbImage::decode_with_alpha(&file).unwrap();
    assert_eq!((image.width(), image.height(), alpha), (3, 2, Some(vec![0, 0, 0, 0, 255, 0])));
    assert_eq!(image.pixels()[12..15], [9, 8, 7]);
}

#[test]
fn photos_in_every_format_become_upright() {
    // EXIF data with the orientation 6 only.
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
    let pixels = gradient().pixels().to_vec();
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 48, 32);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::eXIf, exif).unwrap();
    writer.write_image_data(&pixels).unwrap();
    drop(writer);
    let mut jpeg = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut jpeg, 90);
    encoder.add_exif_metadata(exif).unwrap();
    encoder.encode(&pixels, 48, 32, jpeg_encoder::ColorType::Rgb).unwrap();
    let mut webp = Vec::new();
    let mut encoder = image_webp::WebPEncoder::new(&mut webp);
    encoder.set_exif_metadata(exif.to_vec());
    encoder.encode(&pixels, 48, 32, image_webp::ColorType::Rgb8).unwrap();
    for file in [png, jpeg, webp] {
        let decoded = RgbImage::decode(&file).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (32, 48), "{:?}", &file[..12]);
        let corner = &decoded.pixels()[..3];
        assert!(corner.iter().zip([0, 248, 90]).all(|(a, b)| a.abs_diff(b) < 9), "{corner:?}");
    }
}

#[test]
fn truncated_files_are_refused() {
    let noise: Vec<u8> = (0..64 * 64 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let image = RgbImage::new(64, 64, noise).unwrap();
    let mut gif = Vec::new();
    let palette: Vec<u8> = (0..=255).flat_map(|value| [value; 3]).collect();
    let mut encoder = gif::Encoder::new(&mut gif, 64, 64, &palette).unwrap();
    let buffer = image.pixels()[..64 * 64].into();
    encoder.write_frame(&gif::Frame { width: 64, height: 64, buffer, ..gif::Frame::default() }).unwrap();
    drop(encoder);
    let [png, jpeg, webp] = [FileFormat::Png, FileFormat::Jpeg { quality: 90 }, FileFormat::WebpLossless]
        .map(|format| image.encode(format).unwrap());
    for (name, file) in [("png", png), ("jpeg", jpeg), ("webp", webp), ("gif", gif)] {
        RgbImage::decode(&file).unwrap();
        for length in [12, file.len() / 4, file.len() / 2, file.len() - 20] {
            RgbImage::decode(&file[..length]).expect_err(name);
        }
    }
}

#[test]
fn images_of_more_than_100_million_pixels_are_refused_before_they_are_decoded() {
    let mut png = Vec::new();
    let mut writer = png::Encoder::new(&mut png, 20_000, 20_000).write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[]).unwrap();
    drop(writer);
    let mut gif = Vec::new();
    let frame = gif::Frame { width: 1, height: 1, buffer: (&[0][..]).into(), ..gif::Frame::default() };
    gif::Encoder::new(&mut gif, 20_000, 20_000, &[0; 6]).unwrap().write_frame(&frame).unwrap();
    for file in [png, gif] {
        let message = RgbImage::decode(&file).unwrap_err().to_string();
        assert!(message.contains("it has 20000x20000 pixels"), "{message}");
    }
}

#[test]
fn formats_that_are_not_supported_are_named() {
    for (file, name) in [
        (&b"\0\0\0\x20ftypavif\0\0\0\0"[..], "AVIF"),
        (b"\0\0\0\x20ftypheic\0\0\0\0", "HEIF"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"BM\x46\0\0\0", "BMP"),
    ] {
        let message = RgbImage::decode(file).unwrap_err().to_string();
        assert!(message.contains(&format!("{name} is not supported; provide a complete PNG")), "{message}");
    }
}

/// All formats that can contain metadata.
fn formats() -> Vec<FileFormat> {
    vec![
        FileFormat::Png,
        FileFormat::Jpeg { quality: 90 },
        FileFormat::WebpLossless,
        FileFormat::WebpLossy { quality: 80 },
        #[cfg(feature = "avif")]
        FileFormat::Avif { quality: 80 },
    ]
}

fn metadata(json: impl Into<String>) -> FileMetadata {
    FileMetadata { json: json.into(), parameters: "a star\nSteps: 1".into() }
}

#[test]
fn files_contain_metadata_in_any_language_and_the_same_pixels() {
    let image = gradient();
    for json in ["", "{}", "odd", "{\"prompt\": \"\u{661f}\u{1f31f}\\n\\\"é\\u0000\"}"] {
        for format in formats() {
            let file = image.encode_with(format, &metadata(json)).unwrap();
            assert_eq!(read_metadata(&file).as_deref(), Some(json), "{format:?}");
            let plain = image.encode(format).unwrap();
            assert_eq!(read_metadata(&plain), None, "{format:?}");
            if !format!("{format:?}").starts_with("Avif") {
                assert!(RgbImage::decode(&file).unwrap() == RgbImage::decode(&plain).unwrap(), "{format:?}");
            }
        }
    }
    let gif = image.encode_with(FileFormat::Gif, &metadata("{}")).unwrap();
    assert_eq!((read_metadata(&gif), gif), (None, image.encode(FileFormat::Gif).unwrap()));
}

/// Programs that read the parameters of generated images expect big-endian EXIF data with a comment in UTF-16.
#[test]
fn files_contain_the_parameters_in_the_form_of_other_programs() {
    let parameters = "a stär \u{1f31f}\nSteps: 1";
    let metadata = FileMetadata { json: "{}".into(), parameters: parameters.into() };
    let comment: Vec<u8> =
        b"UNICODE\0".iter().copied().chain(parameters.encode_utf16().flat_map(u16::to_be_bytes)).collect();
    let find = |file: &[u8], part: &[u8]| file.windows(part.len()).position(|window| window == part);
    for format in formats().into_iter().skip(1) {
        let file = gradient().encode_with(format, &metadata).unwrap();
        let exif = find(&file, b"MM\0*").unwrap();
        let before = &file[..exif];
        match format {
            FileFormat::Jpeg { .. } => assert!(before.ends_with(b"Exif\0\0")),
            FileFormat::WebpLossless | FileFormat::WebpLossy { .. } => {
                // The flag of EXIF data in the header, and a chunk without the prefix of JPEG.
                assert!(file[12..].starts_with(b"VP8X") && file[20] & 0b1000 != 0, "{format:?}");
                let length = u32::from_le_bytes(*before.last_chunk().unwrap()) as usize;
                assert!(before[..exif - 4].ends_with(b"EXIF") && exif + length <= file.len(), "{format:?}");
            }
            // The distance to the TIFF header.
            _ => assert!(before.ends_with(&[0; 4]), "{format:?}"),
        }
        assert!(find(&file[exif..], &comment).is_some(), "{format:?}");
    }
    let file = gradient().encode_with(FileFormat::Png, &metadata).unwrap();
    let chunk = [b"iTXtparameters\0\0\0\0\0".as_slice(), parameters.as_bytes()].concat();
    assert!(find(&file, &chunk) < find(&file, b"IDAT"));
    assert!(find(&file, &chunk).is_some());
}

#[test]
fn a_jpeg_file_contains_the_json_as_long_as_it_has_space() {
    let long = FileMetadata { json: "x".repeat(60_000), parameters: "y".repeat(60_000) };
    for format in formats() {
        let file = gradient().encode_with(format, &long).unwrap();
        assert!(read_metadata(&file).unwrap() == long.json, "{format:?}");
    }
    let error = gradient().encode_with(FileFormat::Jpeg { quality: 90 }, &metadata("x".repeat(70_000))).unwrap_err();
    assert!(error.to_string().contains("choose another file format"), "{error}");
}

#[test]
fn metadata_that_other_programs_have_moved_is_found() {
    let png = |compressed, is_first| {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 48, 32);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        let mut text = png::text_metadata::ITXtChunk::new("lumenfall", "{\"seed\": 7}".repeat(50));
        text.compressed = compressed;
        if is_first {
            writer.write_text_chunk(&text).unwrap();
        }
        writer.write_image_data(gradient().pixels()).unwrap();
        if !is_first {
            writer.write_text_chunk(&text).unwrap();
        }
        drop(writer);
        file
    };
    for (compressed, is_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let text = read_metadata(&png(compressed, is_first));
        assert_eq!(text, Some("{\"seed\": 7}".repeat(50)), "{compressed} {is_first}");
    }

    let file = gradient().encode_with(FileFormat::WebpLossless, &metadata("{}")).unwrap();
    let exif = image_webp::WebPDecoder::new(std::io::Cursor::new(file)).unwrap().exif_metadata().unwrap().unwrap();
    let mut file = Vec::new();
    let mut encoder = image_webp::WebPEncoder::new(&mut file);
    encoder.set_exif_metadata([b"Exif\0\0", exif.as_slice()].concat());
    encoder.encode(gradient().pixels(), 48, 32, image_webp::ColorType::Rgb8).unwrap();
    assert_eq!(read_metadata(&file).as_deref(), Some("{}"));
}

#[test]
fn a_compressed_text_that_expands_to_more_than_a_mebibyte_is_not_read() {
    let mut file = Vec::new();
    let mut writer = png::Encoder::new(&mut file, 1, 1).write_header().unwrap();
    let mut text = png::text_metadata::ITXtChunk::new("lumenfall", "x".repeat(2 << 20));
    text.compressed = true;
    writer.write_text_chunk(&text).unwrap();
    writer.write_image_data(&[0]).unwrap();
    drop(writer);
    assert!(file.len() < 10_000);
    assert_eq!(read_metadata(&file), None);
}

#[test]
fn the_metadata_of_invalid_files_is_read_or_ignored() {
    let json = "{\"seed\": 7}";
    for format in formats() {
        let file = gradient().encode_with(format, &metadata(json)).unwrap();
        for length in 0..file.len() {
            let read = read_metadata(&file[..length]);
            assert!(read.is_none() || read.as_deref() == Some(json), "{format:?} {length}: {read:?}");
        }
        for index in 0..file.len().min(600) {
            for value in [0, 0x7f, 0xff] {
                let mut changed = file.clone();
                changed[index] = value;
                read_metadata(&changed);
            }
        }
    }
}
