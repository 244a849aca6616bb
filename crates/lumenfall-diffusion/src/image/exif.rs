//! EXIF data, which has the structure of a TIFF file.

/// The orientation of a photo.
const ORIENTATION: u16 = 0x0112;
/// The position of the directory of photographic data, which contains the following two entries.
const EXIF_DIRECTORY: u16 = 0x8769;
/// Data in a private format of the program that wrote the file.
const MAKER_NOTE: u16 = 0x927c;
const USER_COMMENT: u16 = 0x9286;
/// Marks the private data of this crate.
const MAKER: &[u8] = b"lumenfall\0";

/// Returns EXIF data with a private text and, if it is not empty, a user comment, in the form that programs which read the
/// parameters of generated images expect: big-endian, with a comment in UTF-16.
pub(super) fn write(private: &str, comment: &str) -> Vec<u8> {
    let mut entries = vec![(MAKER_NOTE, [MAKER, private.as_bytes()].concat())];
    if !comment.is_empty() {
        let units = comment.encode_utf16().flat_map(u16::to_be_bytes);
        entries.push((USER_COMMENT, b"UNICODE\0".iter().copied().chain(units).collect()));
    }
    let mut data = b"MM\0*".to_vec();
    // The first directory contains only the position of the second one, which follows it.
    data.extend([0, 0, 0, 8, 0, 1]);
    data.extend(entry(EXIF_DIRECTORY, 4, 1, 26));
    data.extend([0; 4]);
    data.extend((entries.len() as u16).to_be_bytes());
    let mut position = 26 + 2 + 12 * entries.len() + 4;
    for (tag, value) in &entries {
        data.extend(entry(*tag, 7, value.len(), position));
        position += value.len();
    }
    data.extend([0; 4]);
    data.extend(entries.into_iter().flat_map(|(_, value)| value));
    data
}

/// Returns an entry of a directory: tag, type, number of values, and the value or its position.
fn entry(tag: u16, kind: u16, count: usize, value: usize) -> Vec<u8> {
    let numbers = [count, value].map(|number| (number as u32).to_be_bytes());
    [&tag.to_be_bytes()[..], &kind.to_be_bytes(), numbers.as_flattened()].concat()
}

/// Returns the orientation from 1 (upright) to 8, or `None` if `exif` contains no valid one.
pub(super) fn orientation(exif: &[u8]) -> Option<u8> {
    let tiff = Tiff::new(exif)?;
    let entry = tiff.entry(tiff.u32_at(4)?, ORIENTATION)?;
    u8::try_from(tiff.u16_at(entry.checked_add(8)?)?).ok().filter(|orientation| (1..=8).contains(orientation))
}

/// Returns the private text that [`write`] stored.
pub(super) fn private(exif: &[u8]) -> Option<String> {
    let tiff = Tiff::new(exif)?;
    let value = |entry: usize| tiff.u32_at(entry.checked_add(8)?);
    let directory = value(tiff.entry(tiff.u32_at(4)?, EXIF_DIRECTORY)?)?;
    let note = tiff.entry(directory, MAKER_NOTE)?;
    let length = tiff.u32_at(note.checked_add(4)?)?;
    let text = tiff.data.get(value(note)?..)?.get(..length)?.strip_prefix(MAKER)?;
    String::from_utf8(text.to_vec()).ok()
}

struct Tiff<'a> {
    data: &'a [u8],
    is_big_endian: bool,
}

impl<'a> Tiff<'a> {
    fn new(exif: &'a [u8]) -> Option<Self> {
        // Some WebP files repeat the prefix of JPEG.
        let data = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
        let is_big_endian = match data.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        Some(Self { data, is_big_endian })
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        let bytes = *self.data.get(at..)?.first_chunk()?;
        Some(if self.is_big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32_at(&self, at: usize) -> Option<usize> {
        let bytes = *self.data.get(at..)?.first_chunk()?;
        let value = if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(value).ok()
    }

    /// Returns the position of the entry with this tag in a directory, which is a count and entries of 12 bytes.
    fn entry(&self, directory: usize, tag: u16) -> Option<usize> {
        let entries = (0..self.u16_at(directory)?).map(|i| directory.saturating_add(2 + 12 * usize::from(i)));
        entries.take_while(|entry| self.u16_at(*entry).is_some()).find(|entry| self.u16_at(*entry) == Some(tag))
    }
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
        for (tag, value) in [(0x010f, 9), (ORIENTATION, orientation)] {
            data.extend([u16(tag), u16(3)].concat());
            data.extend(u32(1));
            data.extend([u16(value), [0, 0]].concat());
        }
        data
    }

    #[test]
    fn the_orientation_is_found_in_both_byte_orders() {
        for value in 1..=8 {
            for is_big_endian in [false, true] {
                assert_eq!(orientation(&exif(is_big_endian, value)), Some(value as u8));
            }
        }
    }

    #[test]
    fn invalid_exif_data_has_no_orientation() {
        let valid = exif(false, 6);
        assert_eq!(orientation(&[b"Exif\0\0", valid.as_slice()].concat()), Some(6));
        for length in 0..valid.len() - 2 {
            assert_eq!(orientation(valid.get(..length).unwrap()), None, "{length}");
        }
        for invalid in [exif(true, 0), exif(true, 9), b"II*\0\xff\xff\xff\xff".to_vec()] {
            assert_eq!(orientation(&invalid), None);
        }
    }

    #[test]
    fn a_truncated_private_text_is_not_returned() {
        let valid = write("{\"a\": \"é\"}", "a star");
        assert_eq!(private(&valid).as_deref(), Some("{\"a\": \"é\"}"));
        assert_eq!(private(&write("", "")).as_deref(), Some(""));
        // The comment follows the text.
        for length in 0..valid.len() - 20 {
            assert_eq!(private(valid.get(..length).unwrap()), None, "{length}");
        }
    }
}
