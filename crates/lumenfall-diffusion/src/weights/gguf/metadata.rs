//! The key-value pairs of a GGUF file.

use std::collections::HashMap;

use super::cursor::Cursor;
use crate::error::Result;

const DEFAULT_ALIGNMENT: u64 = 32;

/// The prefix of the keys with which ComfyUI-GGUF stores shapes that tensors cannot have in the file.
const SHAPE_PREFIX: &str = "comfy.gguf.orig_shape.";
const MAX_SHAPE_LENGTH: u64 = 8;

/// The types of values.
const UINT32: u32 = 4;
const INT32: u32 = 5;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// The entries that the reader uses.
pub(super) struct Metadata {
    /// The position of each tensor is a multiple of this number.
    pub(super) alignment: u64,
    /// The shapes of tensors that are stored in another shape.
    pub(super) shapes: HashMap<String, Vec<usize>>,
}

impl Metadata {
    pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Self> {
        let mut metadata = Self { alignment: DEFAULT_ALIGNMENT, shapes: HashMap::new() };
        for _ in 0..count {
            let key = cursor.text()?;
            let value_type = cursor.u32()?;
            match (key.as_str(), value_type) {
                ("general.alignment", UINT32) => {
                    let alignment = cursor.u32()?;
                    if !alignment.is_power_of_two() {
                        return Err(cursor.corrupt(format!("has the alignment {alignment}, which is not a power of 2")));
                    }
                    metadata.alignment = alignment.into();
                }
                (_, ARRAY) => match key.strip_prefix(SHAPE_PREFIX) {
                    Some(tensor) => {
                        let shape = read_shape(cursor, &key)?;
                        metadata.shapes.insert(tensor.into(), shape);
                    }
                    None => skip_array(cursor, &key)?,
                },
                (_, STRING) => skip_text(cursor)?,
                _ => cursor.skip(size_of(cursor, &key, value_type)?)?,
            }
        }
        Ok(metadata)
    }
}

fn read_shape(cursor: &mut Cursor<'_>, key: &str) -> Result<Vec<usize>> {
    let (element_type, length) = (cursor.u32()?, cursor.u64()?);
    if element_type != INT32 || !(1..=MAX_SHAPE_LENGTH).contains(&length) {
        return Err(cursor.corrupt(format!(
            "has {length} values of the type {element_type} in `{key}`, which must be 1 to {MAX_SHAPE_LENGTH} INT32"
        )));
    }
    let dimensions = (0..length).map(|_| cursor.array().map(i32::from_le_bytes)).collect::<Result<Vec<_>>>()?;
    let shape = dimensions.iter().map(|dimension| usize::try_from(*dimension)).collect::<std::result::Result<_, _>>();
    shape.map_err(|_| cursor.corrupt(format!("has the shape {dimensions:?} in `{key}`")))
}

fn skip_array(cursor: &mut Cursor<'_>, key: &str) -> Result<()> {
    let (element_type, length) = (cursor.u32()?, cursor.u64()?);
    if element_type == STRING {
        return (0..length).try_for_each(|_| skip_text(cursor));
    }
    // The product saturates beyond the end of every file.
    cursor.skip(length.saturating_mul(size_of(cursor, key, element_type)?))
}

fn skip_text(cursor: &mut Cursor<'_>) -> Result<()> {
    let length = cursor.u64()?;
    cursor.skip(length)
}

/// Returns the size of a value with a fixed size. Like ggml, the reader rejects arrays of arrays.
fn size_of(cursor: &Cursor<'_>, key: &str, value_type: u32) -> Result<u64> {
    match value_type {
        // UINT8, INT8, BOOL
        0 | 1 | 7 => Ok(1),
        // UINT16, INT16
        2 | 3 => Ok(2),
        // UINT32, INT32, FLOAT32
        4..=6 => Ok(4),
        // UINT64, INT64, FLOAT64
        10..=12 => Ok(8),
        _ => Err(cursor.corrupt(format!("has a value of the type {value_type} in `{key}`"))),
    }
}
