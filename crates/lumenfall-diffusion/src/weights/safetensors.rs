//! The header of a safetensors file.

use std::collections::HashMap;

use ::safetensors::Dtype;
use ::safetensors::tensor::Metadata;
use lumenfall_kernels::Format;

use super::files::RandomAccess;
use super::shard::{Shard, TensorInfo};
use crate::error::{Error, Result};

/// A file with a longer header is rejected. Models have less than 1 MB, and the memory for a header is a multiple of its length.
const MAX_HEADER_BYTES: u64 = 8 << 20;

/// Reads the JSON header, whose length is in the first 8 bytes.
pub(super) fn header(file: &RandomAccess) -> Result<Vec<u8>> {
    let corrupt = |reason: String| Error::malformed(&file.path, reason);
    let mut length = [0; 8];
    if file.length < 8 {
        return Err(corrupt("is too short to be a safetensors file; download it again".into()));
    }
    file.read_at(0, &mut length)?;
    let header_length = u64::from_le_bytes(length);
    let available = file.length - 8;
    if header_length > available {
        let mut start = vec![0; file.length.min(40) as usize];
        file.read_at(0, &mut start)?;
        if let Some(text) =
            str::from_utf8(&start).ok().filter(|text| !text.contains(|c: char| c.is_control() && !c.is_whitespace()))
        {
            let start = text.lines().next().unwrap_or_default();
            return Err(corrupt(format!(
                "is a text file that begins with {start:?}; download the file itself (a Git LFS pointer with `git lfs pull`)"
            )));
        }
        return Err(corrupt(format!(
            "describes a header of {header_length} bytes and has {available}, so it is truncated or not a safetensors file; \
             download it again or convert it to safetensors"
        )));
    }
    if header_length > MAX_HEADER_BYTES {
        return Err(corrupt(format!(
            "has a header of {header_length} bytes, but at most {MAX_HEADER_BYTES} bytes are supported; \
             download it again, or use a file with fewer tensors"
        )));
    }
    let mut header = vec![0; usize::try_from(header_length).unwrap_or(usize::MAX)];
    file.read_at(8, &mut header)?;
    Ok(header)
}

/// An open file.
#[derive(Debug)]
pub(super) struct Safetensors {
    pub(super) shard: Shard,
    pub(super) tensors: HashMap<String, TensorInfo>,
    /// The text entries of the header.
    pub(super) metadata: HashMap<String, String>,
}

/// Reads the header of a file and checks that the file contains what it describes.
pub(super) fn open(file: RandomAccess) -> Result<Safetensors> {
    let corrupt = |reason: String| Error::malformed(&file.path, reason);
    let header = header(&file)?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
        corrupt(format!("is not a safetensors file: its header is not valid ({error}); download it again"))
    })?;
    let data_start = header.len() as u64 + 8;
    // `Metadata` has checked that the tensors follow each other without gaps, up to `data_len`.
    let expected = data_start.saturating_add(metadata.data_len() as u64);
    if file.length != expected {
        let problem = if file.length < expected { "is truncated" } else { "is not the file that was written" };
        return Err(corrupt(format!(
            "has {} bytes, but its header describes {expected} bytes, so it {problem}; download it again",
            file.length
        )));
    }
    // A tensor with no values can have any other dimensions.
    let overflows =
        |shape: &[usize]| shape.iter().try_fold(1usize, |product, side| product.checked_mul((*side).max(1))).is_none();
    if let Some((name, info)) = metadata.tensors().into_iter().find(|(_, info)| overflows(&info.shape)) {
        return Err(corrupt(format!(
            "contains the tensor `{name}` of the shape {:?}, which is too large; download it again",
            info.shape
        )));
    }
    let tensors = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let start = data_start + info.data_offsets.0 as u64;
            (name, TensorInfo { shape: info.shape.clone(), format: format_of(info.dtype), start })
        })
        .collect();
    let metadata = metadata.metadata().clone().unwrap_or_default();
    Ok(Safetensors { shard: Shard::new(file), tensors, metadata })
}

fn format_of(dtype: Dtype) -> std::result::Result<Format, String> {
    match dtype {
        Dtype::F32 => Ok(Format::F32),
        Dtype::F16 => Ok(Format::F16),
        Dtype::BF16 => Ok(Format::Bf16),
        Dtype::F8_E4M3 => Ok(Format::F8E4m3),
        Dtype::F8_E5M2 => Ok(Format::F8E5m2),
        other => Err(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::super::files::ModelFiles;
    use super::*;

    fn open(header: &str, data: &[u8]) -> Result<Safetensors> {
        let folder = tempfile::tempdir().unwrap();
        let content = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
        std::fs::write(folder.path().join("a.safetensors"), content).unwrap();
        super::open(ModelFiles::Folder(folder.path().into()).open("a.safetensors").unwrap())
    }

    #[track_caller]
    fn assert_refused(header: &str, data: &[u8], part: &str) {
        let error = open(header, data).unwrap_err().to_string();
        assert!(error.contains("a.safetensors: ") && error.contains(part), "{error:?} does not contain {part:?}");
    }

    #[test]
    fn malformed_headers_are_refused() {
        let tensor = |dtype: &str, shape: &str, start: u64, end: u64| {
            format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}}}"#)
        };
        assert!(open(&tensor("F16", "[2,3]", 0, 12), &[0; 12]).is_ok());
        assert_refused(&tensor("F16", "[2,3]", 0, 12), &[0; 11], "so it is truncated");
        assert_refused(&tensor("F16", "[2,3]", 0, 12), &[0; 13], "so it is not the file that was written");
        assert_refused(&tensor("U8", "[1152921504606846976]", 0, 1 << 60), &[], "describes 1152921504606847073 bytes");
        let shape = "[4294967296,4294967296]";
        for (header, data) in [
            (tensor("F16", shape, 0, 0), 0),
            (tensor("U8", "[18446744073709551615]", 0, u64::MAX), 0),
            (tensor("F16", "[3]", 0, 4), 4),
            (tensor("F16", "[3]", 6, 12), 12),
            (tensor("F16", "[3]", 6, 0), 12),
            (tensor("F16", "[-3]", 0, 6), 6),
            (tensor("F17", "[3]", 0, 6), 6),
            ("[".repeat(100_000), 0),
        ] {
            assert_refused(&header, &vec![0; data], "its header is not valid");
        }
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789\n";
        let error = super::open(RandomAccess::in_memory(pointer.as_bytes())).unwrap_err().to_string();
        assert!(error.contains("is a text file that begins with \"version https://git-lfs.github.com/spec"), "{error}");
        let empty = tensor("F16", "[0,1099511627776,1099511627776]", 0, 0);
        assert_refused(&empty, &[], "`w` of the shape [0, 1099511627776, 1099511627776], which is too large");
        assert!(open(&tensor("F16", "[0,3]", 0, 0), &[]).is_ok());
        assert_refused(&" ".repeat((8 << 20) + 1), &[], "has a header of 8388609 bytes, but at most 8388608 bytes");
    }

    #[test]
    fn tensors_beyond_4_gib_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (path, end) = (folder.path().join("a.safetensors"), (5 << 30) + 4);
        let header = r#"{"a":{"dtype":"F32","shape":[1342177280],"data_offsets":[0,5368709120]},
                         "b":{"dtype":"F32","shape":[1],"data_offsets":[5368709120,5368709124]}}"#;
        let start = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        std::fs::write(&path, &start).unwrap();
        // The rest of the file is not written and takes no space.
        let mut file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(start.len() as u64 + end).unwrap();
        file.seek(SeekFrom::End(-4)).unwrap();
        file.write_all(&1.5f32.to_le_bytes()).unwrap();
        let Safetensors { shard, tensors, .. } = super::open(RandomAccess::open(&path).unwrap()).unwrap();
        assert_eq!(shard.read("b", &tensors["b"], 0, 1).unwrap().into_f32(), [1.5]);
        assert_eq!(shard.read("a", &tensors["a"], (5 << 28) - 2, 2).unwrap().into_f32(), [0.0; 2]);
    }

    #[test]
    fn mutated_files_do_not_panic() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/formats.safetensors");
        let original = std::fs::read(path).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut refused = 0;
        for _ in 0..300 {
            let mut file = original.clone();
            let at = random(300);
            match random(4) {
                0 => file.truncate(at),
                1 => file[at] ^= 1 << random(8),
                2 => file[at] = b"0123456789[]{},:\""[random(17)],
                _ => file.copy_within(random(300)..300, at),
            }
            std::fs::write(folder.path().join("a.safetensors"), file).unwrap();
            match super::open(ModelFiles::Folder(folder.path().into()).open("a.safetensors").unwrap()) {
                Ok(Safetensors { shard, tensors, .. }) => tensors.iter().for_each(|(name, info)| {
                    drop(shard.read(name, info, 0, info.shape.iter().product()));
                }),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 150, "only {refused} of 300 mutated files were refused");
    }
}
