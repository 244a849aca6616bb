//! The results of a command, as text or JSON, and its exit code.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

use lumenfall::backend::Metadata;
use lumenfall::images::Saved;
use lumenfall::{Error, ErrorKind, Images, Inline};
use serde_json::{Value, json};

/// The result of a command that succeeded.
#[derive(Debug)]
pub(crate) struct Report {
    /// For standard output.
    pub(crate) text: String,
    /// For standard error, one a line.
    pub(crate) notes: Vec<String>,
    /// For standard output with `--json`, instead of all others.
    pub(crate) json: Value,
}

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    Error(Error),
    /// The user pressed Ctrl-C.
    Interrupted {
        maybe_billed: bool,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Report {
    /// Reports the images, which were saved as the files `saved`.
    pub(crate) fn images(images: &Images<Inline>, saved: &[Saved]) -> Self {
        let Metadata {
            cost,
            lost_bills,
            steps,
            skipped_forwards,
            elapsed,
            warnings,
            provider,
            model,
            fingerprint,
            parameters,
            request_id,
            ..
        } = images.metadata();
        let seconds = elapsed.as_secs_f64();
        let paths: Vec<String> = saved.iter().map(|file| file.path.display().to_string()).collect();
        let warnings: Vec<&String> =
            warnings.iter().chain(saved.iter().filter_map(|file| file.warning.as_ref())).collect();
        let unfetched: Vec<&str> = images.unfetched().iter().filter_map(|image| image.url()).collect();

        let mut facts: Vec<String> = Vec::new();
        facts.extend(images.first().and_then(|image| image.seed()).map(|seed| format!("seed {seed}")));
        facts.extend(steps.map(|steps| format!("{steps} steps")));
        facts.extend(skipped_forwards.map(|skipped| format!("{skipped} forward passes skipped")));
        facts.push(format!("{seconds:.1} s"));
        facts.extend(cost.as_ref().filter(|cost| cost.micros > 0).map(ToString::to_string));
        let mut notes = vec![facts.join(", ")];
        notes.extend(warnings.iter().map(|warning| format!("warning: {warning}")));
        notes.extend(unfetched.iter().map(|url| unfetched_note(url)));

        let files: Vec<Value> = paths
            .iter()
            .zip(images)
            .map(
                |(path, image)| json!({ "path": path, "seed": image.seed(), "revised_prompt": image.revised_prompt() }),
            )
            .collect();
        let json = json!({
            "images": files, "steps": steps, "skipped_forwards": skipped_forwards, "seconds": seconds, "cost": cost,
            "lost_bills": lost_bills, "provider": provider, "model": model, "fingerprint": fingerprint, "parameters": parameters,
            "request_id": request_id, "warnings": warnings, "unfetched_urls": unfetched,
        });
        Self { text: paths.iter().map(|path| format!("{path}\n")).collect(), notes, json }
    }

    pub(crate) fn print(&self, as_json: bool) -> ExitCode {
        print(as_json.then_some(&self.json), &self.text, &self.notes, 0)
    }
}

impl Failure {
    pub(crate) fn print(&self, as_json: bool) -> ExitCode {
        let (json, notes) = match self {
            Self::Error(error) => {
                let mut notes = vec![format!("error: {error}")];
                notes.extend(error.unfetched_urls().iter().map(|url| unfetched_note(url)));
                let json = json!({
                    "kind": kind_name(error.kind()), "message": error.to_string(), "parameter": error.parameter(),
                    "code": error.code(), "status": error.status(), "request_id": error.request_id(),
                    "retry_after_seconds": error.retry_after().map(|wait| wait.as_secs_f64()),
                    "maybe_billed": error.maybe_billed(), "unfetched_urls": error.unfetched_urls(),
                });
                (json, notes)
            }
            Self::Interrupted { maybe_billed } => {
                let message = match maybe_billed {
                    true => "interrupted; the request may have been billed",
                    false => "interrupted",
                };
                let json = json!({ "kind": "interrupted", "message": message, "maybe_billed": maybe_billed });
                (json, vec![message.into()])
            }
        };
        print(as_json.then_some(&json!({ "error": json })), "", &notes, self.exit_code())
    }

    /// The exit codes are documented in `help.rs` and in the README.
    fn exit_code(&self) -> u8 {
        let kind = match self {
            Self::Error(error) => error.kind(),
            Self::Interrupted { .. } => return 130,
        };
        match kind {
            ErrorKind::InvalidRequest | ErrorKind::Unsupported => 2,
            ErrorKind::Configuration | ErrorKind::Authentication => 3,
            ErrorKind::InsufficientBalance => 4,
            ErrorKind::ContentPolicy => 5,
            ErrorKind::NotFound => 6,
            ErrorKind::RateLimited => 7,
            ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::Upstream | ErrorKind::InvalidResponse => 8,
            ErrorKind::Io | ErrorKind::Model => 9,
            _ => 1,
        }
    }
}

fn unfetched_note(url: &str) -> String {
    format!("an image was generated but could not be downloaded; its URL works for a limited time: {url}")
}

/// `InvalidRequest` becomes `invalid_request`.
fn kind_name(kind: ErrorKind) -> String {
    let mut name = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

pub(crate) fn print_text(text: &str) -> ExitCode {
    print(None, text, &[], 0)
}

/// Prints either `json`, or `text` and `notes`. Returns the exit code `code`, or 9 if standard output cannot be written.
fn print(json: Option<&Value>, text: &str, notes: &[String], code: u8) -> ExitCode {
    let written = match json {
        Some(json) => writeln!(stdout(), "{json}"),
        None => {
            for note in notes {
                let _ = writeln!(stderr(), "{note}");
            }
            stdout().write_all(text.as_bytes())
        }
    };
    match written {
        Ok(()) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(stderr(), "cannot write to standard output: {error}");
            ExitCode::from(9)
        }
    }
}
