//! Generates an image for each line of a file, and continues where it stopped if it is run again after a crash or a kill.
//!
//! ```sh
//! LUMENFALL_API_KEY=… cargo run --example batch --features testing -- prompts.txt images
//! ```

use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use lumenfall::layers::Limit;
use lumenfall::remote::Remote;
use lumenfall::{Backend, Client, Error, Png};

/// How many requests run at the same time.
const CONCURRENCY: usize = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(prompts), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: batch PROMPTS FOLDER".into());
    };
    let prompts: Vec<String> = std::fs::read_to_string(prompts)?.lines().map(str::to_owned).collect();
    std::fs::create_dir_all(&folder)?;
    let failed = run(Remote::from_env()?, &prompts, Path::new(&folder)).await;
    for (index, error) in &failed {
        eprintln!("image {index} failed: {error}");
    }
    println!("{} of {} images are in {folder}", prompts.len() - failed.len(), prompts.len());
    Ok(())
}

/// Generates the missing images, and returns the index and the error of each that failed.
///
/// A file is the record that its image is complete: `save` writes to a temporary file and renames it at the end. A kill
/// loses at most the requests that were running.
async fn run(backend: impl Backend + 'static, prompts: &[String], folder: &Path) -> Vec<(usize, Error)> {
    let client = Client::new(Limit::new(backend).concurrency(CONCURRENCY).rate(60, Duration::from_secs(60)));
    let missing =
        prompts.iter().enumerate().map(|(index, prompt)| (index, prompt, folder.join(format!("{index}.png"))));
    let requests = missing.filter(|(_, _, path)| !path.exists()).map(|(index, prompt, path)| {
        // The index as the seed: a prompt that occurs twice has two images, and a second run makes the same one.
        let request = client.images().generate(prompt).output_format(Png).seed(index as u64);
        async move {
            let images = request.send().await.map_err(|error| (index, error))?;
            match images.first() {
                Some(image) => image.save(&path).await.map(drop).map_err(|error| (index, error)),
                None => Ok(()),
            }
        }
    });
    let results: Vec<_> = stream::iter(requests).buffer_unordered(CONCURRENCY).collect().await;
    results.into_iter().filter_map(Result::err).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lumenfall::ErrorKind;
    use lumenfall::testing::MockBackend;

    #[tokio::test(start_paused = true)]
    async fn a_batch_continues_after_a_kill_and_pays_for_each_image_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let prompts: Vec<String> = (0..600).map(|index| format!("icon {index}")).collect();
        let backend = MockBackend::new().delay(Duration::from_millis(100));
        // The future is dropped after a while, as a kill would.
        let _ = tokio::time::timeout(Duration::from_secs(130), run(backend.clone(), &prompts, folder.path())).await;
        let (before, paid) = (files(folder.path()), backend.requests().len());
        assert!((60..600).contains(&before) && paid - before <= CONCURRENCY, "{before} files, {paid} requests");

        backend.fail_next(Error::new(ErrorKind::ContentPolicy, "refused"));
        assert_eq!(run(backend.clone(), &prompts, folder.path()).await.len(), 1);
        assert_eq!(files(folder.path()), 599);
        assert!(run(backend.clone(), &prompts, folder.path()).await.is_empty());
        assert_eq!(files(folder.path()), 600);
        assert_eq!(backend.requests().len(), paid + (600 - before) + 1);
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder)
            .expect("the folder")
            .filter_map(Result::ok)
            .filter(|file| file.path().extension().is_some_and(|e| e == "png"))
            .count()
    }
}
