//! `cargo xtask codegen`: writes the generated files, or checks that they are up to date.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lumenfall_codegen::{Module, generate, generate_default, index};

/// The schema of the model for `client.images()` and the short macros, such as `size!`.
const DEFAULT: &str = "stable-diffusion-3.5-medium.json";

/// Writes every generated file.
pub(crate) fn write() -> Result<(), String> {
    for (path, code) in expected()? {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        fs::write(&path, code).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Returns an error that lists the generated files that do not match the schemas.
pub(crate) fn check() -> Result<(), String> {
    let expected = expected()?;
    let mut wrong: Vec<String> = expected
        .iter()
        .filter(|(path, code)| fs::read_to_string(path).ok().as_ref() != Some(*code))
        .map(|(path, _)| format!("out of date: {}", path.display()))
        .collect();
    let folder = root().join("src/generated");
    wrong.extend(
        files(&folder, "rs")?
            .into_iter()
            .filter(|path| !expected.contains_key(path))
            .map(|path| format!("no schema for: {}", path.display())),
    );
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nrun `cargo xtask codegen`", wrong.join("\n")))
}

/// Returns the path and the expected content of each generated file.
fn expected() -> Result<BTreeMap<PathBuf, String>, String> {
    let mut modules = Vec::new();
    for path in files(&root().join("schemas"), "json")? {
        modules.push(module(&path, "schemas")?);
    }
    let folder = root().join("src/generated");
    let mut expected = BTreeMap::from([(folder.join("mod.rs"), index(&modules))]);
    expected.extend(modules.into_iter().map(|module| (folder.join(module.name + ".rs"), module.code)));

    let golden = root().join("crates/lumenfall-codegen/tests/golden");
    for path in files(&golden, "json")? {
        expected.insert(path.with_extension("rs"), module(&path, "tests/golden")?.code);
    }
    Ok(expected)
}

fn module(path: &Path, folder: &str) -> Result<Module, String> {
    let json = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let generate = if file == DEFAULT { generate_default } else { generate };
    generate(&format!("{folder}/{file}"), &json).map_err(|error| error.to_string())
}

/// Returns the files in `folder` with this extension, sorted. If the folder does not exist, returns no files.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
