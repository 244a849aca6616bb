//! Writes weight files with random values, for benchmarks.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use lumenfall_kernels::Format;
use serde_json::{Map, json};

use super::gguf;
use crate::error::{Error, Result};
use crate::sampling::Generator;

/// The maximum number of different values. A larger tensor repeats them.
const PATTERN: usize = 1 << 20;

/// The standard deviation of the values.
const DEVIATION: f32 = 0.02;

/// The position of each tensor in a GGUF file is a multiple of this number.
const ALIGNMENT: usize = 32;

/// The type of a string in the metadata of a GGUF file.
const GGUF_STRING: u32 = 8;

/// A tensor to write.
#[derive(Clone, Debug)]
pub(crate) struct NewTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) format: Format,
    /// Whether all values are 1 instead of random.
    pub(crate) ones: bool,
}

impl NewTensor {
    fn bytes(&self) -> usize {
        self.format.bytes_of(self.shape.iter().product()).unwrap_or(0)
    }
}

/// Writes a safetensors file.
pub(crate) fn write_safetensors(path: &Path, tensors: &[NewTensor]) -> Result<()> {
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes();
        let entry = json!({ "dtype": tensor.format.name(), "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let header = [(header.len() as u64).to_le_bytes().as_slice(), &header].concat();
    write(path, &header, tensors, 1)
}

/// Writes a GGUF file.
pub(crate) fn write_gguf(path: &Path, architecture: &str, tensors: &[NewTensor]) -> Result<()> {
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend(1u64.to_le_bytes());
    let text = |header: &mut Vec<u8>, text: &str| {
        header.extend((text.len() as u64).to_le_bytes());
        header.extend(text.as_bytes());
    };
    text(&mut header, "general.architecture");
    header.extend(GGUF_STRING.to_le_bytes());
    text(&mut header, architecture);
    let mut start = 0;
    for tensor in tensors {
        let unsupported = || Error::Compute(format!("a GGUF file cannot contain the type {}", tensor.format.name()));
        let type_number = gguf::type_number(tensor.format).ok_or_else(unsupported)?;
        text(&mut header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|dimension| header.extend((*dimension as u64).to_le_bytes()));
        header.extend(type_number.to_le_bytes());
        header.extend((start as u64).to_le_bytes());
        start += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    write(path, &header, tensors, ALIGNMENT)
}

/// Writes the header and then the values of each tensor, whose positions are multiples of `alignment`.
fn write(path: &Path, header: &[u8], tensors: &[NewTensor], alignment: usize) -> Result<()> {
    let error = |source| Error::File { action: "write", path: path.to_path_buf(), source };
    let mut file = File::create(path).map_err(error)?;
    file.write_all(header).map_err(error)?;
    let largest = tensors.iter().map(|tensor| tensor.shape.iter().product()).max().unwrap_or(0);
    let mut patterns: Vec<(Format, bool, Vec<u8>)> = Vec::new();
    for tensor in tensors {
        let NewTensor { format, ones, .. } = *tensor;
        let known = patterns.iter().position(|(known, known_ones, _)| (*known, *known_ones) == (format, ones));
        let (_, _, pattern) = match known {
            Some(index) => patterns.swap_remove(index),
            None if ones => (format, ones, encode(format, &[1.0; 256])),
            None => (format, ones, random(format, largest.min(PATTERN))),
        };
        let mut left = tensor.bytes();
        while left > 0 {
            let (part, _) = pattern.split_at(left.min(pattern.len()));
            file.write_all(part).map_err(error)?;
            left -= part.len();
        }
        patterns.push((format, ones, pattern));
        let padding = tensor.bytes().next_multiple_of(alignment) - tensor.bytes();
        file.write_all(&vec![0; padding]).map_err(error)?;
    }
    Ok(())
}

/// Returns at least `count` random values in Q8_0, Q4_K or a format that is not quantised.
pub(super) fn random(format: Format, count: usize) -> Vec<u8> {
    if format.block_values() == 1 {
        let values: Vec<f32> = Generator::new(0).normal(count).into_iter().map(|value| value * DEVIATION).collect();
        return encode(format, &values);
    }
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let bytes = count.div_ceil(format.block_values()) * format.block_bytes();
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut random).take(bytes).collect();
    match format {
        Format::Q4K => bytes.as_chunks_mut().0.iter_mut().for_each(scale_q4_k),
        _ => bytes.as_chunks_mut().0.iter_mut().for_each(scale_q8_0),
    }
    bytes
}

/// Sets the scale of a random block of Q8_0.
fn scale_q8_0([d0, d1, ..]: &mut [u8; 34]) {
    // An 8-bit integer has the deviation 74.
    [*d0, *d1] = f16::from_f32(DEVIATION / 74.0).to_le_bytes();
}

/// Sets the scales of a random block of Q4_K such that the mean of its values is 0.
fn scale_q4_k(block: &mut [u8; 144]) {
    // A 4-bit integer has the mean 7.5, and its product with a 6-bit scale the deviation 168.
    let scale = DEVIATION / 168.0;
    let [d0, d1, min0, min1, s0, s1, s2, s3, m0, m1, m2, m3, high @ ..] = block;
    [*d0, *d1] = f16::from_f32(scale).to_le_bytes();
    [*min0, *min1] = f16::from_f32(7.5 * scale).to_le_bytes();
    // Each minimum has the same integer factor as its scale.
    [*m0, *m1, *m2, *m3] = [*s0, *s1, *s2, *s3];
    for packed in high.iter_mut().take(4) {
        *packed = (*packed & 15) * 17;
    }
}

/// Converts values to a format with blocks of one value.
fn encode(format: Format, values: &[f32]) -> Vec<u8> {
    match format {
        Format::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
        Format::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        Format::F8E4m3 => {
            // The codes below the sign bit have ascending values, except the last, which is not a number.
            let codes: Vec<u8> = (0..127).collect();
            let mut ascending = vec![0.0; codes.len()];
            format.widen(&codes, &mut ascending);
            let pairs = ascending.iter().zip(ascending.iter().skip(1));
            let limits: Vec<f32> = pairs.map(|(below, above)| (below + above) / 2.0).collect();
            let code = |value: &f32| limits.partition_point(|limit| *limit < value.abs()) as u8;
            values.iter().map(|value| code(value) | if *value < 0.0 { 0x80 } else { 0 }).collect()
        }
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_every_format_have_the_same_deviation() {
        for format in [Format::F32, Format::F16, Format::Bf16, Format::F8E4m3, Format::Q8_0, Format::Q4K] {
            let bytes = random(format, 1 << 16);
            let mut values = vec![f32::NAN; 1 << 16];
            format.widen(&bytes, &mut values);
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let deviation = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
            assert!(mean.abs() < 5e-4 && (deviation / DEVIATION - 1.0).abs() < 0.05, "{format:?}: {mean}, {deviation}");
        }
    }

    #[test]
    fn ones_are_exact() {
        for format in [Format::F32, Format::F16, Format::Bf16, Format::F8E4m3] {
            let mut values = [0.0; 2];
            format.widen(&encode(format, &[1.0, -1.0]), &mut values);
            assert_eq!(values, [1.0, -1.0], "{format:?}");
        }
    }
}
