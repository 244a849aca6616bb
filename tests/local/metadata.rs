//! What a result says about its making.

use std::fs;
use std::path::Path;

use lumenfall::backend::{Backend, Metadata, Options};
use lumenfall::local::Local;
use lumenfall::{Input, Jpeg, OutputFormat, Sampling};

use crate::{client, spec};

#[tokio::test]
async fn the_parameters_of_a_result_repeat_it() {
    let client = client();
    let mut request = spec(|spec| spec.options = Options::default());
    let first = client.images().generate_spec(request.clone()).inline().send().await.unwrap();
    let metadata = first.metadata();
    let parameters = metadata.parameters.clone().unwrap();
    let used = &parameters.sampling;
    assert_eq!((used.steps, used.guidance, used.strength), (Some(28), Some(4.5), None));
    assert_eq!((used.seed, parameters.n), (first[0].seed(), Some(1)));
    assert_eq!((parameters.size, metadata.size), ("96x96".parse().ok(), parameters.size));

    let stored = serde_json::to_string(metadata).unwrap();
    let read: Metadata = serde_json::from_str(&stored).unwrap();
    assert_eq!((&read.fingerprint, read.elapsed), (&metadata.fingerprint, metadata.elapsed));
    request.options = read.parameters.unwrap();
    let second = client.images().generate_spec(request).inline().send().await.unwrap();
    assert_eq!(second[0].bytes(), first[0].bytes());
}

#[tokio::test]
async fn the_parameters_of_an_edit_contain_its_strength_and_quality() {
    let client = client();
    let source = client.images().generate_spec(spec(|_| {})).inline().send().await.unwrap();
    let edit = client.images().edit(Input::bytes(source[0].bytes().clone())).prompt("a moon").user("ada");
    let edited = edit.steps(5).seed(3).negative_prompt("rain").output_format(Jpeg).inline().send().await.unwrap();
    let sampling = Sampling::default().with_seed(3).with_steps(5).with_guidance(4.5).with_negative_prompt("rain");
    let options =
        Options::default().with_size("32x32".parse().unwrap()).with_output_format(OutputFormat::Jpeg).with_n(1);
    let expected = options.with_output_compression(90).with_sampling(sampling.with_strength(0.6));
    let metadata = edited.metadata();
    assert_eq!((metadata.parameters.as_ref(), metadata.steps), (Some(&expected), Some(3)));
}

#[test]
fn the_fingerprint_depends_on_the_files_but_not_on_their_folder() {
    let original = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/crates/lumenfall-diffusion/tests/golden/model"));
    let copies = tempfile::tempdir().unwrap();
    let copy = |name: &str, change: &dyn Fn(&Path)| {
        let folder = copies.path().join(name);
        copy_folder(original, &folder);
        change(&folder);
        Local::open(&folder).unwrap()
    };
    let fingerprint = |local: &Local| local.fingerprint().to_owned();
    let edit = |path: std::path::PathBuf, change: fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    let same = copy("same", &|_| {});
    let config = copy("config", &|folder| edit(folder.join("vae/config.json"), |bytes| bytes.push(b'\n')));
    let weights = copy("weights", &|folder| {
        edit(folder.join("transformer/diffusion_pytorch_model.safetensors"), |bytes| {
            *bytes.last_mut().unwrap() ^= 1;
        });
    });
    let expected = fingerprint(&Local::open(original).unwrap());
    assert_eq!((fingerprint(&same), expected.len()), (expected.clone(), 64));
    assert_ne!(fingerprint(&config), expected);
    assert_ne!(fingerprint(&weights), expected);

    let before = weights.identity();
    fs::remove_dir_all(copies.path().join("weights")).unwrap();
    assert_ne!(copy("weights", &|_| {}).identity(), before, "changed files have other cache keys");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}
