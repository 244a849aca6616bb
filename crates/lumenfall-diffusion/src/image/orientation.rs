//! The orientation of a photo, which a camera stores as EXIF data.

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
    use super::upright;

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
            assert_eq!(upright(b"abcdef".to_vec(), (3, 2), orientation), expected.as_bytes(), "{orientation}");
        }
    }
}
