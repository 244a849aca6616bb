//! Generates an image in a program without an async runtime: a worker thread reports progress to the thread of the user
//! interface, which can cancel the request.
//!
//! ```sh
//! cargo run --example desktop --features local,blocking -- "a red circle on a white background"
//! ```

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use lumenfall::backend::Progress;
use lumenfall::blocking::Wait;
use lumenfall::{Cancellation, Client, Error};

/// An event for the thread of the user interface.
enum Event {
    Progress(Progress),
    Finished(Result<PathBuf, Error>),
}

fn main() -> Result<(), Error> {
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "a red circle on a white background".into());
    let (events, _cancellation) = start(Client::demo()?, prompt, Path::new("image.png"));
    // A real program calls `cancel()` when the user presses a button.
    for event in events {
        match event {
            Event::Progress(Progress::Step { step, steps, .. }) => println!("step {step} of {steps}"),
            Event::Progress(_) => {}
            Event::Finished(result) => println!("{}", result?.display()),
        }
    }
    Ok(())
}

/// Starts a request on a thread of its own. The channel closes after `Finished`.
fn start(client: Client, prompt: String, path: &Path) -> (Receiver<Event>, Cancellation) {
    let (sender, events) = mpsc::channel();
    let (cancellation, path) = (Cancellation::new(), path.to_owned());
    let request = client.images().generate(prompt).cancel_with(&cancellation);
    thread::spawn(move || {
        let progress = sender.clone();
        let request = request.on_progress(move |event| drop(progress.send(Event::Progress(event))));
        let result = request.send().wait().and_then(|images| match images.first() {
            Some(image) => image.save(&path).wait().map(|_| path),
            None => Ok(path),
        });
        // Sending fails only if the user interface has ended.
        let _ = sender.send(Event::Finished(result));
    });
    (events, cancellation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumenfall::ErrorKind;

    fn finished(events: &Receiver<Event>) -> Option<Result<PathBuf, Error>> {
        events.iter().find_map(|event| match event {
            Event::Finished(result) => Some(result),
            Event::Progress(_) => None,
        })
    }

    #[test]
    fn an_image_is_saved_and_a_cancelled_request_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let client = Client::demo().expect("the demonstration model");
        let path = folder.path().join("circle.png");
        let (events, _cancellation) = start(client.clone(), "a red circle on a white background".into(), &path);
        let steps = events.iter().take_while(|event| matches!(event, Event::Progress(_))).count();
        assert!(steps > 10 && path.exists(), "{steps} progress events");

        let other = folder.path().join("other.png");
        let (events, cancellation) = start(client, "a blue star on a black background".into(), &other);
        cancellation.cancel();
        let error = finished(&events).expect("the last event").expect_err("the request was cancelled");
        assert!(error.kind() == ErrorKind::Cancelled && !other.exists(), "{error}");
    }
}
