//! One line on the terminal that shows how far the work is.

use std::io::{IsTerminal as _, Write as _, stderr};

use lumenfall::backend::Progress;

use crate::arguments::Place;

/// A line on standard error that is updated in place, and removed on drop. It is shown only on a terminal.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    is_shown: bool,
}

impl ProgressLine {
    pub(crate) fn start(place: &Place) -> Self {
        let line = Self { is_shown: stderr().is_terminal() };
        if line.is_shown && matches!(place, Place::Remote) {
            write("waiting for the server");
        }
        line
    }

    /// Returns the function that updates the line.
    pub(crate) fn callback(&self) -> impl Fn(Progress) + Send + Sync + 'static {
        let is_shown = self.is_shown;
        move |progress| {
            if is_shown && let Some(text) = describe(&progress) {
                write(&text);
            }
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.is_shown {
            write("");
            let _ = stderr().write_all(b"\r");
        }
    }
}

/// Replaces the line. A terminal that cannot be written to does not stop the work.
fn write(text: &str) {
    let _ = write!(stderr(), "\r{text:<50}");
}

fn describe(progress: &Progress) -> Option<String> {
    Some(match progress {
        Progress::Queued { position: Some(position) } => format!("waiting for {position} other requests"),
        Progress::Queued { position: None } => "waiting for a provider".into(),
        Progress::Running => "generating".into(),
        Progress::Loading => "loading the model".into(),
        Progress::EncodingPrompt => "encoding the prompt".into(),
        Progress::Step { image, step, steps, remaining, .. } => {
            format!("image {}: step {step} of {steps}, {} s left", image + 1, remaining.as_secs_f32().ceil())
        }
        Progress::Decoding { image } => format!("image {}: decoding", image + 1),
        _ => return None,
    })
}
