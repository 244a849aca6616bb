//! The demonstration model draws what the prompt says.

use lumenfall::local::Local;
use lumenfall::{Client, Sampling, count};
use lumenfall_diffusion::{LoadOptions, Picture};

use crate::judge::{BACKGROUNDS, COLOURS, SHAPES, Verdict, judge};

/// Pairs that the denoiser has never seen; `tools/shapes.py` holds them out.
const HELD_OUT: [(&str, &str); 6] = [
    ("green", "circle"),
    ("orange", "square"),
    ("cyan", "triangle"),
    ("purple", "star"),
    ("yellow", "diamond"),
    ("pink", "cross"),
];

#[derive(Clone, Copy)]
struct Scene {
    colour: &'static str,
    shape: &'static str,
    background: &'static str,
}

/// Every pair of colour and shape; the backgrounds take turns.
fn scenes() -> Vec<Scene> {
    let pairs = COLOURS.iter().flat_map(|(colour, _)| SHAPES.iter().map(move |(shape, _)| (*colour, *shape)));
    pairs
        .enumerate()
        .map(|(i, (colour, shape))| Scene { colour, shape, background: BACKGROUNDS[(i + i / 6) % 4].0 })
        .collect()
}

impl Scene {
    fn prompt(&self) -> String {
        let article = if self.colour.starts_with('o') { "an" } else { "a" };
        format!("{article} {} {} on a {} background", self.colour, self.shape, self.background)
    }
}

async fn draw(client: &Client, prompt: &str, sampling: Sampling) -> Vec<Picture> {
    let images = client.images().generate(prompt).sampling(sampling).n(count!(2)).inline().send().await.unwrap();
    images.iter().map(|image| Picture::decode(image.bytes()).unwrap()).collect()
}

/// All 48 prompts with two seeds each.
async fn gallery(client: &Client, guidance: f32) -> Vec<(Scene, Verdict)> {
    let mut gallery = Vec::new();
    for (i, scene) in scenes().into_iter().enumerate() {
        let sampling = Sampling { seed: Some(i as u64 * 10), guidance: Some(guidance), ..Sampling::default() };
        for picture in draw(client, &scene.prompt(), sampling).await {
            gallery.push((scene, judge(&picture)));
        }
    }
    gallery
}

fn share<T>(items: &[T], holds: impl Fn(&T) -> bool) -> f64 {
    items.iter().filter(|item| holds(item)).count() as f64 / items.len() as f64
}

fn colour_right((scene, verdict): &(Scene, Verdict)) -> bool {
    verdict.colour == Some(scene.colour)
}

fn shape_right((scene, verdict): &(Scene, Verdict)) -> bool {
    verdict.shape == Some(scene.shape)
}

fn background_right((scene, verdict): &(Scene, Verdict)) -> bool {
    verdict.background == scene.background
}

#[tokio::test]
async fn pictures_show_the_colour_shape_and_background_of_the_prompt() {
    let client = Client::demo().unwrap();
    let guided = gallery(&client, 4.0).await;
    assert_eq!(guided.len(), 96);
    let (held_out, _): (Vec<_>, Vec<_>) =
        guided.iter().partition(|(scene, _)| HELD_OUT.contains(&(scene.colour, scene.shape)));
    assert_eq!(held_out.len(), 12);
    let colour = share(&guided, colour_right);
    let background = share(&guided, background_right);
    let shape = share(&guided, shape_right);
    let unseen = share(&held_out, |entry| colour_right(entry) && shape_right(entry));
    println!("colour {colour:.3}, background {background:.3}, shape {shape:.3}, held-out pairs {unseen:.3}");
    assert!(colour >= 0.95 && background >= 0.95 && shape >= 0.85 && unseen >= 0.70);

    // Without guidance the prompt counts for less. How well the shape fits tells more than right or wrong.
    let unguided = gallery(&client, 1.0).await;
    let fit = |gallery: &[(Scene, Verdict)]| -> f64 {
        gallery.iter().map(|(scene, verdict)| verdict.fit(scene.shape)).sum::<f64>() / gallery.len() as f64
    };
    println!("mean fit of the shape: guidance 4 {:.4}, guidance 1 {:.4}", fit(&guided), fit(&unguided));
    println!("shape right without guidance {:.3}", share(&unguided, shape_right));
    assert!(fit(&unguided) < fit(&guided));
}

#[tokio::test]
async fn a_negative_prompt_moves_the_colour() {
    let client = Client::demo().unwrap();
    for colour in ["red", "blue"] {
        let mut shares = Vec::new();
        for negative_prompt in [None, Some(colour.to_owned())] {
            let mut verdicts = Vec::new();
            for seed in (0..24).map(|i| i * 2) {
                let sampling =
                    Sampling { seed: Some(seed), negative_prompt: negative_prompt.clone(), ..Sampling::default() };
                verdicts.extend(draw(&client, "a circle on a white background", sampling).await.iter().map(judge));
            }
            shares.push(share(&verdicts, |verdict| verdict.colour == Some(colour)));
        }
        println!("share of {colour} circles: {:.3}, with it as the negative prompt {:.3}", shares[0], shares[1]);
        assert!(shares[0] > 0.0 && shares[1] < shares[0] / 2.0, "{colour}: {shares:?}");
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/lumenfall-diffusion/demo");
    let mut files = Vec::new();
    for threads in [1, 2, 3, 5] {
        let mut options = LoadOptions::default();
        options.threads = Some(threads);
        let client = Client::new(Local::open_with(folder, options).unwrap());
        let images = client.images().generate("a yellow star").seed(9).steps(6).inline().send().await.unwrap();
        files.push(images[0].bytes().clone());
    }
    let embedded =
        Client::demo().unwrap().images().generate("a yellow star").seed(9).steps(6).inline().send().await.unwrap();
    files.push(embedded[0].bytes().clone());
    assert!(files.iter().all(|file| *file == files[0]));
}
