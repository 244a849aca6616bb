//! Reading a corrupt file ends in an error within a second of computation, and takes at most 200 MiB of memory.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests may panic")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lumenfall_diffusion::{
    Callbacks, FileFormat, FileMetadata, LoadOptions, ModelFiles, Parameters, Pipeline, RgbImage, read_metadata,
};
use tempfile::TempDir;

const SAFETENSORS: &str = "transformer/diffusion_pytorch_model.safetensors";
const INDEX: &str = "text_encoder_3/model.safetensors.index.json";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Returns a copy of the golden model.
fn model() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for part in fs::read_dir(golden("model")).unwrap().map(Result::unwrap).filter(|part| part.path().is_dir()) {
        fs::create_dir(copy.path().join(part.file_name())).unwrap();
        for file in fs::read_dir(part.path()).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), copy.path().join(part.file_name()).join(file.file_name())).unwrap();
        }
    }
    copy
}

/// Returns the most memory that the process has used since it was last reset, in KiB.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Returns the time that this thread has computed, which does not depend on other programs.
fn time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The name of the program, in brackets, is followed by the state. Times are in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| Duration::from_millis(10 * ticks.parse::<u64>().unwrap())).sum()
}

/// Reads a file while no other test of this program runs, and checks the time and the memory.
#[track_caller]
fn within_limits<T>(what: &str, read: impl Fn() -> T) -> T {
    static RUNNING: Mutex<()> = Mutex::new(());
    let _alone = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    // Resets the peak to the present use.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (memory, computed, started) = (peak_memory(), time(), Instant::now());
    let result = read();
    let (computed, waited) = (time() - computed, started.elapsed());
    // Without optimization, headers take about four times as long.
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 4 } else { 1 });
    assert!(computed < limit && waited < Duration::from_secs(30), "{what}: {computed:?}, {waited:?}");
    let used = peak_memory().saturating_sub(memory) >> 10;
    assert!(used < 200, "{what}: {used} MiB");
    result
}

/// Opens a model.
fn open(files: &ModelFiles) -> Result<(), String> {
    Pipeline::open(files, &LoadOptions::default()).map(|_| ()).map_err(|error| error.to_string())
}

/// Finds the parts of a model, of which one file was changed.
fn find(path: &Path) -> Result<(), String> {
    ModelFiles::find(path).map(|_| ()).map_err(|error| error.to_string())
}

/// A sequence of pseudo-random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    /// Changes one of the first bytes of a file, repeats or removes a part of it, or truncates it.
    fn mutate(&mut self, file: &mut Vec<u8>, first: usize) {
        let at = self.below(first.min(file.len()));
        let end = (at + 1 + self.below(24)).min(file.len());
        match self.below(6) {
            0 => file.truncate(at),
            1 => file[at] ^= 1 << self.below(8),
            2 => file[at] = b"0123456789[]{},:\"-e"[self.below(19)],
            3 => drop(file.splice(at..end, [0xff; 8])),
            4 => drop(file.drain(at..end)),
            _ => {
                let part = file[at..end].to_vec();
                drop(file.splice(at..at, part));
            }
        }
    }
}

#[test]
fn mutated_files_of_a_model_are_refused() {
    let (model, parts) = (model(), tempfile::tempdir().unwrap());
    for name in ["bundle.safetensors", "denoiser-Q8_0.gguf"] {
        fs::copy(golden("layouts").join(name), parts.path().join(name)).unwrap();
    }
    let folder = ModelFiles::Folder(model.path().to_path_buf());
    // The names, the number of bytes that are mutated, and the reader.
    type Reader<'a> = &'a dyn Fn(&Path) -> Result<(), String>;
    let in_folder: Reader<'_> = &|_| open(&folder);
    let in_model = |name: &str| model.path().join(name);
    let files: [(PathBuf, usize, Reader<'_>); 10] = [
        (in_model(SAFETENSORS), 9000, in_folder),
        (in_model("vae/diffusion_pytorch_model.safetensors"), 9000, in_folder),
        (parts.path().join("bundle.safetensors"), 30_000, &find),
        (parts.path().join("denoiser-Q8_0.gguf"), 5000, &find),
        (parts.path().join("denoiser-Q8_0.gguf"), 300, &find),
        (in_model("transformer/config.json"), 9000, in_folder),
        (in_model("vae/config.json"), 9000, in_folder),
        (in_model("text_encoder_3/config.json"), 9000, in_folder),
        (in_model("scheduler/scheduler_config.json"), 9000, in_folder),
        (in_model(INDEX), 9000, in_folder),
    ];
    let (mut random, mut refused) = (Random(1), 0);
    for round in 0..300 {
        let (path, first, reader) = &files[round % files.len()];
        let original = fs::read(path).unwrap();
        let mut file = original.clone();
        random.mutate(&mut file, *first);
        fs::write(path, file).unwrap();
        let what = format!("round {round}: {}", path.display());
        if let Err(message) = within_limits(&what, || reader(path)) {
            // An index can name another file.
            let folder = path.parent().unwrap().to_string_lossy();
            assert!(message.contains(&*folder), "{what}: {message}");
            refused += 1;
        }
        fs::write(path, original).unwrap();
        assert_eq!(reader(path), Ok(()), "{what}");
    }
    assert!(refused > 150, "only {refused} of 300 mutated files were refused");
}

#[test]
fn mutated_images_are_refused() {
    let pixels = (0..96u32 * 64).flat_map(|i| [(i % 96 * 2) as u8, (i / 96 * 4) as u8, (i * i % 251) as u8]).collect();
    let image = RgbImage::new(96, 64, pixels).unwrap();
    let metadata = FileMetadata { json: "{}".into(), parameters: "a star".into() };
    let formats = [FileFormat::Png, FileFormat::Jpeg { quality: 90 }, FileFormat::WebpLossless, FileFormat::Gif];
    let files =
        formats.map(|format| (format, image.encode_with(format, &metadata).or_else(|_| image.encode(format)).unwrap()));
    let (mut random, mut refused) = (Random(1), 0);
    for round in 0..300 {
        let (format, original) = &files[round % files.len()];
        let mut file = original.clone();
        random.mutate(&mut file, if round % 8 < 4 { 64 } else { usize::MAX });
        let what = format!("round {round}: {format:?}");
        let decoded = within_limits(&what, || {
            read_metadata(&file);
            RgbImage::decode(&file).map(|_| ())
        });
        refused += usize::from(decoded.is_err());
    }
    assert!(refused > 150, "only {refused} of 300 mutated files were refused");
}

#[test]
fn small_images_that_claim_to_be_large_are_refused() {
    let small = RgbImage::new(48, 32, (0..48 * 32 * 3).map(|i| (i * i % 251) as u8).collect()).unwrap();
    for side in [4_000u16, 9_999] {
        for format in [FileFormat::Png, FileFormat::Jpeg { quality: 90 }, FileFormat::WebpLossless, FileFormat::Gif] {
            let mut file = small.encode(format).unwrap();
            let position = |part: &[u8]| file.windows(part.len()).position(|bytes| bytes == part).unwrap();
            let (at, size) = match format {
                FileFormat::Png => (16, [u32::from(side).to_be_bytes(); 2].concat()),
                FileFormat::Jpeg { .. } => (position(&[0xff, 0xc0]) + 5, [side.to_be_bytes(); 2].concat()),
                // The descriptor of the frame: a comma, its position and its size.
                FileFormat::Gif => (position(b",\0\0\0\0\x30\0\x20\0") + 5, [side.to_le_bytes(); 2].concat()),
                // The width and height minus 1, in 14 bits each, and flags.
                _ => {
                    let (flags, side) = (u32::from(file[24]) << 24 & 0xf000_0000, u32::from(side) - 1);
                    (21, (flags | side << 14 | side).to_le_bytes().to_vec())
                }
            };
            file[at..at + size.len()].copy_from_slice(&size);
            match format {
                FileFormat::Png => {
                    let checksum = crc32(&file[12..29]).to_be_bytes();
                    file[29..33].copy_from_slice(&checksum);
                }
                // The size of the image.
                FileFormat::Gif => file[6..10].copy_from_slice(&size),
                _ => {}
            }
            let decoded = within_limits(&format!("{format:?}"), || RgbImage::decode(&file).map(|_| ()));
            assert!(decoded.is_err(), "{format:?}");
        }
    }
}

/// Returns the checksum of a part of a PNG file.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// Returns a safetensors file with empty tensors.
fn empty_tensors(count: usize) -> Vec<u8> {
    let entry = |index| format!(r#""{index:x}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
    let header = format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}

/// Returns a GGUF file with tensors of one value.
fn small_tensors(count: u64) -> Vec<u8> {
    let tensor = |index: u64| {
        let name = format!("{index:x}");
        let dimensions = [1u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat();
        let place = [0u32.to_le_bytes().as_slice(), &(32 * index).to_le_bytes()].concat();
        [&(name.len() as u64).to_le_bytes(), name.as_bytes(), &dimensions, &place].concat()
    };
    let start = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &count.to_le_bytes(), &0u64.to_le_bytes()].concat();
    let mut file = [start, (0..count).flat_map(tensor).collect()].concat();
    file.resize(file.len().next_multiple_of(32) + 32 * count as usize, 0);
    file
}

#[test]
fn files_with_very_many_tensors_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut messages = Vec::new();
    // The largest numbers that are read, and more.
    for (name, file) in [
        ("a.safetensors", empty_tensors(135_000)),
        ("a.safetensors", empty_tensors(800_000)),
        ("a.gguf", small_tensors(65_536)),
        ("a.gguf", small_tensors(800_000)),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, file).unwrap();
        messages.push(within_limits(name, || find(&path)).unwrap_err());
        fs::remove_file(path).unwrap();
    }
    assert!(messages[0].contains("contains no part of Stable Diffusion 3.5"), "{}", messages[0]);
    assert!(messages[1].contains("bytes, but at most 8388608 bytes are supported"), "{}", messages[1]);
    assert!(messages[2].contains("contains no part of Stable Diffusion 3.5"), "{}", messages[2]);
    assert!(messages[3].contains("has 800000 tensors"), "{}", messages[3]);
}

#[test]
fn extreme_files_of_a_model_are_refused() {
    let content = |text: &str| text.as_bytes().to_vec();
    let header = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let tensor = |shape: &str, start: u64, end: u64| {
        header(&format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}}}"#))
    };
    // A header of a length near 2^64, sizes near 2^64, and tensors that overlap.
    let overlapping =
        r#"{"v":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"w":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}"#;
    let shards = |names: &str| content(&format!(r#"{{"weight_map": {{{names}}}}}"#));
    for (name, file) in [
        (SAFETENSORS, vec![0xff; 64]),
        (SAFETENSORS, tensor("[18446744073709551615]", 0, u64::MAX)),
        (SAFETENSORS, tensor("[4294967296,1073741824]", 0, 1 << 62)),
        (SAFETENSORS, [header(overlapping), vec![0; 12]].concat()),
        (SAFETENSORS, content(&"[".repeat(1 << 20))),
        ("transformer/config.json", content(&"[".repeat(1 << 20))),
        ("transformer/config.json", content(&format!("{{\"a\": {}1}}", "0".repeat(1 << 20)))),
        ("vae/config.json", content(r#"{"block_out_channels": [18446744073709551615]}"#)),
        (INDEX, shards(r#""a": "model-00007-of-00002.safetensors""#)),
        (INDEX, shards(r#""a": "../../../../../../../../dev/zero""#)),
        (INDEX, shards(&(0..100_000).map(|i| format!(r#""{i}": "{i}.safetensors""#)).collect::<Vec<_>>().join(","))),
    ] {
        let model = model();
        fs::write(model.path().join(name), file).unwrap();
        within_limits(name, || open(&ModelFiles::Folder(model.path().into()))).unwrap_err();
    }
    for name in ["transformer/config.json", SAFETENSORS, INDEX, "tokenizer_3/tokenizer.json", "tokenizer/vocab.json"] {
        let model = model();
        let path = model.path().join(name);
        let files = ModelFiles::Folder(model.path().into());
        // A file of 30 GB that takes no space.
        File::create(&path).unwrap().set_len(30 << 30).unwrap();
        let generate = || {
            let pipeline = Pipeline::open(&files, &LoadOptions::default())?;
            pipeline.generate(&Parameters::new("a star"), Callbacks::none())
        };
        within_limits(name, || generate().map(|_| ())).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        within_limits(name, || open(&files)).unwrap_err();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        within_limits(name, || open(&files)).unwrap_err();
    }
}

#[test]
fn weights_of_another_type_are_refused() {
    for (dtype, bytes) in [("I32", 4), ("F64", 8), ("BOOL", 1), ("F8_E8M0", 1)] {
        let model = model();
        let path = model.path().join(SAFETENSORS);
        let file = fs::read(&path).unwrap();
        let length = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let mut header: serde_json::Value = serde_json::from_slice(&file[8..length]).unwrap();
        let mut end = 0;
        for tensor in header.as_object_mut().unwrap().values_mut().filter(|tensor| tensor["dtype"].is_string()) {
            let values: u64 = tensor["shape"].as_array().unwrap().iter().map(|side| side.as_u64().unwrap()).product();
            let start = end;
            end += values * bytes;
            (tensor["dtype"], tensor["data_offsets"]) = (dtype.into(), serde_json::json!([start, end]));
        }
        let header = header.to_string();
        let mut file = [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        file.resize(file.len() + end as usize, 0);
        fs::write(path, file).unwrap();
        let message = within_limits(dtype, || open(&ModelFiles::Folder(model.path().into()))).unwrap_err();
        assert!(message.contains(&format!("has the type {dtype}")) && message.contains(SAFETENSORS), "{message}");
    }
}
