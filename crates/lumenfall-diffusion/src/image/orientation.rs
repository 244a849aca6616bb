//! The orientation of a photo, which a camera stores as EXIF data.

use super::RgbImage;
use crate::error::Result;

/// The number of the orientation in EXIF data.
const TAG: u16 = 0x0112;

/// Returns the orientation from 1 (upright) to 8, or `None` if `exif` contains no valid one.
pub(super) fn of_exif(exif: &[u8]) -> Option<u8> {
    // Some WebP files repeat the prefix of JPEG.
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let is_big_endian = match exif.get(..4)? {
        b"II*\0" => false,
        b"MM\0*" => true,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes = *exif.get(at..)?.first_chunk()?;
        Some(if is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    };
    let bytes = *exif.get(4..)?.first_chunk()?;
    let directory = if is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    let directory = usize::try_from(directory).ok()?;
    // A directory is a count and entries of 12 bytes: tag, type, number of values, and the value.
    let entries = (0..u16_at(directory)?).map(|i| directory.saturating_add(2 + 12 * usize::from(i)));
    let entry = entries.take_while(|entry| u16_at(*entry).is_some()).find(|entry| u16_at(*entry) == Some(TAG))?;
    u8::try_from(u16_at(entry.saturating_add(8))?).ok().filter(|orientation| (1..=8).contains(orientation))
}

/// Turns and mirrors a photo with this orientation, so that it is upright.
pub(super) fn upright(image: RgbImage, orientation: u8) -> Result<RgbImage> {
    if orientation == 1 {
        return Ok(image);
    }
    let (width, height) = (image.width as usize, image.height as usize);
    let (out_width, out_height) = if orientation < 5 { (width, height) } else { (height, width) };
    let source = |x: usize, y: usize| match orientation {
        2 => (width - 1 - x, y),
        3 => (width - 1 - x, height - 1 - y),
        4 => (x, height - 1 - y),
        5 => (y, x),
        6 => (y, height - 1 - x),
        7 => (width - 1 - y, height - 1 - x),
        8 => (width - 1 - y, x),
        _ => (x, y),
    };
    let (pixels, _) = image.pixels.as_chunks::<3>();
    let positions = (0..out_height).flat_map(|y| (0..out_width).map(move |x| (x, y)));
    let turned = positions.filter_map(|(x, y)| {
        let (x, y) = source(x, y);
        pixels.get(y * width + x)
    });
    RgbImage::new(out_width as u32, out_height as u32, turned.flatten().copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXIF data with the orientation after another entry.
    fn exif(is_big_endian: bool, orientation: u16) -> Vec<u8> {
        let u16 = |value: u16| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let u32 = |value: u32| if is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let mut data = if is_big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        data.extend(u32(8));
        data.extend(u16(2));
        for (tag, value) in [(0x010f, 9), (TAG, orientation)] {
            data.extend([u16(tag), u16(3)].concat());
            data.extend(u32(1));
            data.extend([u16(value), [0, 0]].concat());
        }
        data
    }

    #[test]
    fn photos_become_upright_as_with_pillow() {
        // The pixels a b c / d e f, and the results of Pillow's `ImageOps.exif_transpose`.
        for (orientation, width, expected) in [
            (1, 3, "abcdef"),
            (2, 3, "cbafed"),
            (3, 3, "fedcba"),
            (4, 3, "defabc"),
            (5, 2, "adbecf"),
            (6, 2, "daebfc"),
            (7, 2, "fcebda"),
            (8, 2, "cfbead"),
        ] {
            for is_big_endian in [false, true] {
                assert_eq!(of_exif(&exif(is_big_endian, orientation)), Some(orientation as u8));
            }
            let image = RgbImage::new(3, 2, b"abcdef".iter().flat_map(|value| [*value; 3]).collect()).unwrap();
            let turned = upright(image, orientation as u8).unwrap();
            assert_eq!(turned.width, width, "{orientation}");
            assert_eq!(
                turned.pixels,
                expected.bytes().flat_map(|value| [value; 3]).collect::<Vec<_>>(),
                "{orientation}"
            );
        }
    }

    #[test]
    fn invalid_exif_data_has_no_orientation() {
        let valid = exif(false, 6);
        assert_eq!(of_exif(&[b"Exif\0\0", valid.as_slice()].concat()), Some(6));
        for length in 0..valid.len() - 2 {
            assert_eq!(of_exif(valid.get(..length).unwrap()), None, "{length}");
        }
        assert_eq!(
            (of_exif(&exif(true, 0)), of_exif(&exif(true, 9)), of_exif(b"II*\0\xff\xff\xff\xff")),
            (None, None, None)
        );
    }
}
