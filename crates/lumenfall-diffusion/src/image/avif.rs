//! The EXIF data of an AVIF file, whose container is the base media file format of ISO 14496-12.

/// Longer data is not read.
const MAX_LENGTH: usize = 1 << 20;

/// Returns the EXIF data.
pub(super) fn exif(file: &[u8]) -> Option<Vec<u8>> {
    // The version and flags of a box take four bytes.
    let meta = Reader(child(file, b"meta")?).skip(4)?.0;
    let item = exif_item(child(meta, b"iinf")?)?;
    let data = item_data(file, child(meta, b"iloc")?, item)?;
    // The item starts with the distance to the TIFF header.
    let mut reader = Reader(&data);
    let distance = reader.number(4)?;
    Some(reader.skip(distance)?.0.to_vec())
}

/// Returns the content of the first box with this type.
fn child<'a>(boxes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    let mut reader = Reader(boxes);
    while !reader.0.is_empty() {
        let (name, content) = next_box(&mut reader)?;
        if name == kind {
            return Some(content);
        }
    }
    None
}

fn next_box<'a>(reader: &mut Reader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let size = reader.number(4)?;
    let name = reader.take(4)?;
    let content = match size {
        // The box extends to the end of the file.
        0 => reader.take(reader.0.len())?,
        1 => {
            let size = reader.number(8)?;
            reader.take(size.checked_sub(16)?)?
        }
        _ => reader.take(size.checked_sub(8)?)?,
    };
    Some((name, content))
}

/// Returns the number of the EXIF item in the list of items.
fn exif_item(list: &[u8]) -> Option<usize> {
    let mut reader = Reader(list);
    let version = reader.number(4)? >> 24;
    let count = reader.number(if version == 0 { 2 } else { 4 })?;
    for _ in 0..count {
        let (_, content) = next_box(&mut reader)?;
        let mut entry = Reader(content);
        let version = entry.number(4)? >> 24;
        let item = entry.number(if version < 3 { 2 } else { 4 })?;
        if entry.skip(2)?.take(4)? == b"Exif" {
            return Some(item);
        }
    }
    None
}

/// Returns the data of an item, whose pieces are anywhere in the file.
fn item_data(file: &[u8], locations: &[u8], wanted: usize) -> Option<Vec<u8>> {
    let mut reader = Reader(locations);
    let version = reader.number(4)? >> 24;
    let sizes = reader.number(2)?;
    let [offset_size, length_size, base_size, index_size] = [12, 8, 4, 0].map(|shift| sizes >> shift & 15);
    let index_size = if version == 0 { 0 } else { index_size };
    let id_size = if version < 2 { 2 } else { 4 };
    for _ in 0..reader.number(id_size)? {
        let item = reader.number(id_size)?;
        let construction = if version == 0 { 0 } else { reader.number(2)? & 15 };
        let base = reader.skip(2)?.number(base_size)?;
        let mut data = Vec::new();
        for _ in 0..reader.number(2)? {
            let offset = reader.skip(index_size)?.number(offset_size)?;
            let length = reader.number(length_size)?;
            if item == wanted {
                data.extend(file.get(base.checked_add(offset)?..)?.get(..length)?);
            }
            if data.len() > MAX_LENGTH {
                return None;
            }
        }
        if item == wanted {
            // Other methods refer to data inside the metadata.
            return (construction == 0).then_some(data);
        }
    }
    None
}

/// The rest of a box.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    fn skip(&mut self, length: usize) -> Option<&mut Self> {
        self.take(length).map(|_| self)
    }

    /// Reads a number of `length` bytes.
    fn number(&mut self, length: usize) -> Option<usize> {
        let bytes = self.take(length)?;
        bytes.iter().try_fold(0_usize, |number, byte| number.checked_mul(256)?.checked_add(usize::from(*byte)))
    }
}
