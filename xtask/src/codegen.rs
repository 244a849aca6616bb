//! Generated files: writes them, or tells which are out of date.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lumenfall_codegen::{Module, generate, generate_default, index};

/// The model that `client.images()` and the short macros belong to.
const DEFAULT: &str = "stable-diffusion-3.5-medium.json";

/// Writes every generated file.
pub(crate) fn write() -> Result<(), String> {
    for (path, code) in expected()? {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|problem| format!("{}: {problem}", folder.display()))?;
        }
        fs::write(&path, code).map_err(|problem| format!("{}: {problem}", path.display()))?;
    }
    Ok(())
}

/// Names the generated files that are not what the schemas say.
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
            .map(|path| format!("without a schema: {}", path.display())),
    );
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nrun `cargo xtask codegen`", wrong.join("\n")))
}

/// What every generated file is to hold.
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
    let json = fs::read_to_string(path).map_err(|problem| format!("{}: {problem}", path.display()))?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let generate = if file == DEFAULT { generate_default } else { generate };
    generate(&format!("{folder}/{file}"), &json).map_err(|problem| problem.to_string())
}

/// The files in `folder` of that extension, in order. A folder that is not there has none.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|problem| format!("{}: {problem}", folder.display()))?.path();
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
