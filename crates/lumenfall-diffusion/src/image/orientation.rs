//! The orientation of a photo, which a camera stores as EXIF data.

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

/// Turns and mirrors the pixels of a photo with this size and orientation, so that it is upright.
pub(super) fn upright<T: Copy>(pixels: Vec<T>, (width, height): (usize, usize), orientation: u8) -> Vec<T> {
    let source: fn((usize, usize), usize, usize) -> (usize, usize) = match orientation {
        2 => |(width, _), x, y| (width - 1 - x, y),
        3 => |(width, height), x, y| (width - 1 - x, height - 1 - y),
        4 => |(_, height), x, y| (x, height - 1 - y),
        5 => |_, x, y| (y, x),
        6 => |(_, height), x, y| (y, height - 1 - x),
        7 => |(width, height), x, y| (width - 1 - y, height - 1 - x),
        8 => |(width, _), x, y| (width - 1 - y, x),
        _ => return pixels,
    };
    let (out_width, out_height) = if orientation < 5 { (width, height) } else { (height, width) };
    let positions = (0..out_height).flat_map(|y| (0..out_width).map(move |x| (x, y)));
    let turned = positions.filter_map(|(x, y)| {
        let (x, y) = source((width, height), x, y);
        pixels.get(y * width + x).copied()
    });
    turned.collect()
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
        for (orientation, expected) in [
            (1, "abcdef"),
            (2, "cbafed"),
            (3, "fedcba"),
            (4, "defabc"),
            (5, "adbecf"),
            (6, "daebfc"),
            (7, "fcebda"),
            (8, "cfbead"),
        ] {
            for is_big_endian in [false, true] {
                assert_eq!(of_exif(&exif(is_big_endian, orientation.into())), Some(orientation));
            }
            assert_eq!(upright(b"abcdef".to_vec(), (3, 2), orientation), expected.as_bytes(), "{orientation}");
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
