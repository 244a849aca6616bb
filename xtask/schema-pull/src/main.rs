//! Fetches the schemas that the gateway serves, tells what has changed, and writes them into a folder:
//! `cargo xtask schema pull`. The key is taken from `LUMENFALL_API_KEY`.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use lumenfall::images::typed;
use lumenfall::remote::Remote;
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, ids @ ..] = arguments.as_slice() else {
        eprintln!("usage: schema-pull FOLDER [MODEL...]");
        return ExitCode::from(2);
    };
    match pull(Path::new(folder), ids).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// Without ids, the models whose schemas are in the folder already.
async fn pull(folder: &Path, ids: &[String]) -> Result<(), Box<dyn Error>> {
    let ids = if ids.is_empty() { there(folder)? } else { ids.to_vec() };
    let remote = Remote::from_env()?;
    for id in &ids {
        let answer = remote.models().schema_json(id).await?;
        let served = typed::served_schema(&answer)?;
        let text = format!("{served:#}\n");
        let path = folder.join(format!("{id}.json"));
        // What the generator cannot read would only break the next build.
        lumenfall_codegen::generate(&format!("the schema served for {id}"), &text)?;
        match fs::read_to_string(&path).ok().map(|before| serde_json::from_str::<Value>(&before)) {
            Some(before) => {
                let changes = typed::changes(&before?, served)?;
                if changes.is_empty() {
                    println!("{id}: unchanged");
                    continue;
                }
                for change in changes {
                    println!("{id}: {change}{}", if change.is_breaking() { " (breaking)" } else { "" });
                }
            }
            None => println!("{id}: new"),
        }
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{} is written; run `cargo xtask codegen`", path.display());
    }
    Ok(())
}

fn there(folder: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
    }
    ids.sort();
    Ok(ids)
}
