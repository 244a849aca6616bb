//! Compares the files in a folder with the schemas that the gateway serves, and updates them: `cargo xtask schema`.
//!
//! The API key is read from `LUMENFALL_API_KEY`.

mod drift;
#[cfg(test)]
mod fuzz;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use lumenfall::remote::Remote;

const USAGE: &str = "usage: cargo xtask schema pull|diff [MODEL...]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, write, ids) = match arguments.as_slice() {
        [folder, command, ids @ ..] if command == "pull" => (folder, true, ids),
        [folder, command, ids @ ..] if command == "diff" => (folder, false, ids),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match update(Path::new(folder), write, ids).await {
        Ok(is_current) if is_current || write => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the changes of each schema, and writes changed schemas if `write` is set. If `ids` is empty, uses the models
/// whose schemas are in the folder. Returns whether no schema has changed.
async fn update(folder: &Path, write: bool, ids: &[String]) -> Result<bool, Box<dyn Error>> {
    let ids = if ids.is_empty() { models(folder)? } else { ids.to_vec() };
    let remote = Remote::from_env()?;
    let mut is_current = true;
    for id in &ids {
        let response = remote.models().schema_json(id).await?;
        let served = drift::schema(&response).map_err(|error| format!("{id}: {error}"))?;
        let text = format!("{served:#}\n");
        // Checks that the generator accepts the schema before it is written.
        lumenfall_codegen::generate(&format!("the schema served for {id}"), &text)?;
        let path = folder.join(format!("{id}.json"));
        match fs::read_to_string(&path) {
            Ok(before) => {
                let changes = drift::changes(&serde_json::from_str(&before)?, served)?;
                if changes.is_empty() {
                    println!("{id}: unchanged");
                    continue;
                }
                for change in changes {
                    println!("{id}: {change}{}", if change.is_breaking() { " (breaking)" } else { "" });
                }
            }
            Err(_) => println!("{id}: new"),
        }
        is_current = false;
        if write {
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            println!("wrote {}; now run `cargo xtask codegen`", path.display());
        }
    }
    Ok(is_current)
}

fn models(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
    }
    ids.sort();
    Ok(ids)
}
