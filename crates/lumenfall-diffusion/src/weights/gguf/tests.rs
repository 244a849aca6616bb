use std::path::PathBuf;
use std::time::{Duration, Instant};

use lumenfall_kernels::{Format, Values};

use super::super::files::ModelFiles;
use super::super::safetensors::{self, Safetensors};
use super::super::shard::{Shard, TensorInfo};
use super::*;

const FORMATS: [&str; 13] =
    ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"];

fn golden() -> ModelFiles {
    ModelFiles::Folder(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))
}

fn bits(shard: &Shard, name: &str, info: &TensorInfo, first: usize, count: usize) -> Vec<u32> {
    let values = shard.read(name, info, first, count).unwrap().into_f32();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_format_has_the_values_of_the_gguf_package() {
    let gguf = Gguf::open(golden().open("formats.gguf").unwrap()).unwrap();
    let Safetensors { shard, tensors: expected, .. } =
        safetensors::open(golden().open("formats.gguf.safetensors").unwrap()).unwrap();
    assert_eq!(expected.len(), FORMATS.len());
    for name in FORMATS {
        let (info, expected) = (&gguf.tensors[name], &expected[name]);
        assert_eq!(info.format.as_ref().map(|format| format.name()), Ok(name));
        assert_eq!(info.shape, [2, 512]);
        let expected = bits(&shard, name, expected, 0, 1024);
        assert!(bits(&gguf.shard, name, info, 0, 1024) == expected, "{name}");
        assert!(bits(&gguf.shard, name, info, 512, 512) == expected[512..], "the second row of {name}");
    }
}

#[test]
fn the_metadata_of_a_file_is_read() {
    let gguf = Gguf::open(golden().open("formats.gguf").unwrap()).unwrap();
    // The file contains 64 values in one dimension, and their original shape as metadata.
    let info = &gguf.tensors["reshaped"];
    assert_eq!(info.shape, [8, 2, 4]);
    let expected: Vec<u32> = (0..64u8).map(|value| f32::from(value).to_bits()).collect();
    assert_eq!(bits(&gguf.shard, "reshaped", info, 0, 64), expected);
}

#[test]
fn a_part_of_a_block_cannot_be_read() {
    let gguf = Gguf::open(golden().open("formats.gguf").unwrap()).unwrap();
    let error = gguf.shard.read("Q4_K", &gguf.tensors["Q4_K"], 128, 256).unwrap_err().to_string();
    assert!(error.contains("formats.gguf: tensor `Q4_K` is stored in blocks of 256 values (Q4_K)"), "{error}");
}

/// Writes files and opens them.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Opens a file with this content, and zeros up to the length.
    fn open(&self, content: &[u8], length: u64) -> Result<Gguf> {
        let path = self.0.path().join("a.gguf");
        std::fs::write(&path, content).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        Gguf::open(ModelFiles::Folder(self.0.path().into()).open("a.gguf").unwrap())
    }

    #[track_caller]
    fn assert_refused(&self, content: &[u8], length: u64, parts: &[&str]) {
        let start = Instant::now();
        let error = self.open(content, length).unwrap_err().to_string();
        for part in parts.iter().chain(&["a.gguf: "]) {
            assert!(error.contains(part), "{error:?} does not contain {part:?}");
        }
        // The goal is 1 s; an idle machine needs a fraction of that.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}: {error}", start.elapsed());
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn tensor(name: &str, dimensions: &[u64], type_number: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend((dimensions.len() as u32).to_le_bytes());
    bytes.extend(dimensions.iter().flat_map(|dimension| dimension.to_le_bytes()));
    bytes.extend(type_number.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn entry(key: &str, value_type: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), value_type.to_le_bytes().as_slice(), value].concat()
}

fn array(key: &str, element_type: u32, length: u64, elements: &[u8]) -> Vec<u8> {
    entry(key, 9, &[&element_type.to_le_bytes(), length.to_le_bytes().as_slice(), elements].concat())
}

fn header(entries: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = [b"GGUF".as_slice(), &3u32.to_le_bytes()].concat();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    bytes.extend(entries.concat());
    bytes.extend(tensors.concat());
    bytes
}

#[test]
fn a_valid_file_is_opened() {
    let folder = Folder::new();
    let file = header(
        &[entry("general.alignment", 4, &64u32.to_le_bytes()), entry("a", 12, &[0; 8])],
        &[tensor("w", &[256, 3], 12, 64), tensor("b", &[3], 0, 0)],
    );
    let start = file.len().next_multiple_of(64) as u64;
    let gguf = folder.open(&file, start + 64 + 3 * 144).unwrap();
    let (w, b) = (&gguf.tensors["w"], &gguf.tensors["b"]);
    assert_eq!((w.shape.as_slice(), &w.format, w.start), ([3, 256].as_slice(), &Ok(Format::Q4K), start + 64));
    assert_eq!((b.shape.as_slice(), &b.format, b.start), ([3].as_slice(), &Ok(Format::F32), start));
    assert_eq!(gguf.shard.read("w", w, 0, 768).unwrap().len(), 768);
}

#[test]
fn rows_that_are_not_whole_blocks_are_converted_when_they_are_read() {
    let shape: Vec<u8> = [4i32, 8].into_iter().flat_map(i32::to_le_bytes).collect();
    let file = header(&[array("comfy.gguf.orig_shape.w", 5, 2, &shape)], &[tensor("w", &[32], 8, 0)]);
    let gguf = Folder::new().open(&file, file.len().next_multiple_of(32) as u64 + 34).unwrap();
    let info = &gguf.tensors["w"];
    assert_eq!(info.shape, [4, 8]);
    assert!(matches!(gguf.shard.read("w", info, 0, 32).unwrap(), Values::F32(values) if values == [0.0; 32]));
}

#[test]
fn malformed_headers_are_refused() {
    let folder = Folder::new();
    let version = |version: u32| [b"GGUF".as_slice(), &version.to_le_bytes(), &[0; 16]].concat();
    let counts = |count: u64| [b"GGUF\x03\0\0\0".as_slice(), &count.to_le_bytes(), &[0; 8]].concat();
    let key = |bytes: Vec<u8>| header(&[bytes], &[]);
    let cases: [(Vec<u8>, &[&str]); 16] = [
        (b"GG".to_vec(), &["has 2 bytes, but its header has 4 more bytes at position 0"]),
        (b"PK\x03\x04".to_vec(), &["does not start with the letters GGUF"]),
        (version(1), &["version 1, which is not supported; use a little-endian file of version 2 or 3"]),
        (version(3u32.swap_bytes()), &["is a big-endian GGUF file"]),
        (counts(1 << 40), &["has 1099511627776 tensors and 0 metadata entries"]),
        (counts(800_000), &["has 800000 tensors and 0 metadata entries"]),
        (counts(3), &["has 24 bytes, but its header has 8 more bytes at position 24"]),
        (key(u64::MAX.to_le_bytes().to_vec()), &["has a text of 18446744073709551615 bytes at position 24"]),
        (key([2u64.to_le_bytes().as_slice(), &[0xc3, 0x28]].concat()), &["position 24 that is not UTF-8"]),
        (key(entry("k", 13, &[])), &["has a value of the type 13 in `k`"]),
        (key(array("k", 9, 1, &[0; 12])), &["has a value of the type 9 in `k`"]),
        (key(array("k", 12, u64::MAX / 4, &[])), &["more bytes at position"]),
        (key(array("k", 8, u64::MAX, &[0; 80])), &["its header has 8 more bytes"]),
        (key(entry("general.alignment", 4, &[0; 4])), &["has the alignment 0, which is not a power of 2"]),
        (key(array("comfy.gguf.orig_shape.w", 5, 9, &[1; 36])), &["has 9 values of the type 5"]),
        (key(array("comfy.gguf.orig_shape.w", 5, 1, &[255; 4])), &["has the shape [-1]"]),
    ];
    for (content, parts) in cases {
        folder.assert_refused(&content, content.len() as u64, parts);
    }
}

#[test]
fn malformed_tensors_are_refused() {
    let folder = Folder::new();
    let cases: [(Vec<Vec<u8>>, &[&str]); 14] = [
        (vec![tensor("w", &[], 0, 0)], &["has 0 dimensions in the tensor `w`"]),
        (vec![tensor("w", &[1; 5], 0, 0)], &["has 5 dimensions in the tensor `w`"]),
        (vec![tensor("w", &[32, 0], 0, 0)], &["tensor `w` has the impossible shape [0, 32]"]),
        (vec![tensor("w", &[1 << 32, 1 << 32], 0, 0)], &["has the impossible shape [4294967296, 4294967296]"]),
        (vec![tensor("w", &[1 << 63], 0, 0)], &["tensor `w` has rows of 9223372036854775808 values"]),
        (vec![tensor("w", &[8, 32], 8, 0)], &["has rows of 8 values, which are not whole Q8_0 blocks of 32"]),
        (vec![tensor("w", &[32], 12, 0)], &["has rows of 32 values, which are not whole Q4_K blocks of 256"]),
        (vec![tensor("w", &[256], 23, 0)], &["tensor `w` has the type IQ4_XS (23), which is not supported; use a"]),
        (vec![tensor("w", &[256], 77, 0)], &["has the type of a later version of GGUF (77)"]),
        (vec![tensor("w", &[8], 0, 8)], &["starts at 8, which is not a multiple of the alignment 32"]),
        (vec![tensor("w", &[8], 0, u64::MAX - 31)], &["starts at 18446744073709551584 and has 32 bytes"]),
        (vec![tensor("w", &[1 << 20], 0, 0)], &["tensor `w` ends at 41943", "but the file has 5000 bytes"]),
        (vec![tensor("w", &[8], 0, 0), tensor("w", &[8], 0, 32)], &["tensor `w` is in the file twice"]),
        (vec![tensor("v", &[16], 0, 32), tensor("w", &[16], 0, 0)], &["tensor `v` overlaps with `w`"]),
    ];
    for (tensors, parts) in cases {
        folder.assert_refused(&header(&[], &tensors), 5000, parts);
    }
    let shape: Vec<u8> = [3i32, 3].into_iter().flat_map(i32::to_le_bytes).collect();
    let reshaped = header(&[array("comfy.gguf.orig_shape.w", 5, 2, &shape)], &[tensor("w", &[8], 0, 0)]);
    folder.assert_refused(&reshaped, 5000, &["has the original shape [3, 3] and the shape [8]"]);
}

#[test]
fn large_headers_are_refused_quickly() {
    let folder = Folder::new();
    let texts = header(&[array("k", 8, u64::MAX, &[])], &[]);
    folder.assert_refused(&texts, 1 << 30, &["a header may have at most 67108864 bytes"]);
    let counts = [b"GGUF\x03\0\0\0".as_slice(), &65536u64.to_le_bytes(), &65536u64.to_le_bytes()].concat();
    folder.assert_refused(&counts, 1 << 30, &["has 0 dimensions in the tensor ``"]);
}

#[test]
fn mutated_files_do_not_panic() {
    let original = std::fs::read(golden().path("formats.gguf")).unwrap();
    let header = original.windows(4).rposition(|window| window == b"Q6_K").unwrap() + 64;
    let folder = Folder::new();
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let start = Instant::now();
    let mut refused = 0;
    for _ in 0..300 {
        let mut file = original.clone();
        let at = random(header);
        match random(4) {
            0 => file.truncate(at),
            1 => file[at] ^= 1 << random(8),
            2 => file[at..at + 8].copy_from_slice(&(u64::MAX >> random(64)).to_le_bytes()),
            _ => {
                let from = random(header);
                file.copy_within(from..from + 24, at);
            }
        }
        match folder.open(&file, file.len() as u64) {
            Ok(gguf) => gguf.tensors.iter().for_each(|(name, info)| {
                drop(gguf.shard.read(name, info, 0, info.shape.iter().product()));
            }),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 150, "only {refused} of 300 mutated files were refused");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
