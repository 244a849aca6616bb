//! Valid requests.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use lumenfall::providers::{Fal, Replicate};
use lumenfall::stable_diffusion_3_5_medium::parameters;
use lumenfall::stable_diffusion_3_5_medium::response_format::B64Json;
use lumenfall::{Avif, Client, Error, Gif, Input, Jpeg, OutputFormat, Png, Sampling, Size, Webp};
use lumenfall::{aspect_ratio, count, literal, percent, prompt, resolution, size};

async fn generate_with_every_setter(client: &Client) -> Result<(), Error> {
    let images = client
        .images()
        .generate(prompt!("a hand-painted sign that says FRESH SOURDOUGH DAILY"))
        .size(size!("1414x1414"))
        .output_format(Webp)
        .output_compression(percent!(100))
        .n(count!(10))
        .user("someone")
        .seed(7)
        .steps(28)
        .guidance(4.5)
        .negative_prompt("text")
        .extra("clip_skip", 2)
        .pin(Fal)
        .timeout(std::time::Duration::from_secs(60))
        .on_progress(|progress| println!("{progress:?}"))
        .inline()
        .send()
        .await?;
    let _: &[u8] = images[0].bytes();
    Ok(())
}

async fn generate_variations(client: &Client, side: u32, format: OutputFormat) -> Result<(), Error> {
    let base = client.images().generate("a lighthouse");
    let _ = base.clone().aspect_ratio(aspect_ratio!("16:9")).resolution(resolution!("1K")).pin(Replicate);
    let _ = base.clone().resolution(resolution!("4K")).aspect_ratio(aspect_ratio!("1:1"));
    let _ = base.clone().size(size!("16:9")).output_format(Png).n(count!(1));
    let _ = base.clone().output_format(Gif).n(literal!(parameters::N, 3));
    let _ = base.clone().try_size(Size::pixels(side, side)?)?.try_n(side)?;
    let _ = base.clone().try_output_format(format)?.output_compression(percent!(80));
    let _ = base.clone().sampling(Sampling::default().with_seed(7));
    let images = base.clone().response_format(B64Json).send().await?;
    let _: &[u8] = images[0].bytes();
    let images = base.inline().hosted().send().await?;
    let _: Option<&str> = images[0].url();
    Ok(())
}

async fn generate_from_plain_data(client: &Client, words: &[String]) -> Result<(), Error> {
    let mut spec = client.images().generate(String::from("a lighthouse")).into_draft().into_spec();
    for word in words {
        spec.prompt.push_str(word);
    }
    if words.len() > 3 {
        spec.options.n = Some(2);
    }
    spec.validate()?;
    let images = client.images().generate_spec(spec).inline().send().await?;
    let _: &[u8] = images[0].bytes();
    Ok(())
}

async fn edit_with_every_setter(client: &Client) -> Result<(), Error> {
    let images = client
        .images()
        .edit(Input::path("source.png"))
        .prompt("add a starry night sky")
        .mask(Input::path("mask.png"))
        .size(size!("1024x1024"))
        .output_format(Jpeg)
        .output_compression(percent!(0))
        .strength(0.6)
        .pin(Replicate)
        .send()
        .await?;
    let _: Option<&str> = images[0].url();
    Ok(())
}

async fn edit_variations(client: &Client) -> Result<(), Error> {
    let several = vec![Input::path("a.png"), Input::bytes(vec![0u8])];
    let _ = client.images().edit(several).output_format(Avif).output_compression(percent!(50));
    let _ = client.images().edit([Input::path("a.png"), Input::path("b.png")]);
    let mut spec = client.images().edit(Input::path("a.png")).into_draft().into_spec();
    spec.prompt = Some("brighter".into());
    let _ = client.images().edit_spec(spec).estimate().await?;
    Ok(())
}

fn text_of_every_string_type(client: &Client, text: &str, owned: &String, cow: Cow<'_, str>, boxed: Box<str>) {
    let (images, arc, rc) = (client.images(), Arc::<str>::from(text), Rc::<str>::from(text));
    let base = images.clone().generate(text);
    let _ = base.clone().user(&cow).negative_prompt(&arc).user(&boxed).negative_prompt(&rc).user(owned);
    let _ = base.user(arc.clone()).negative_prompt(rc.clone());
    let _ = images.clone().generate(owned);
    let _ = images.clone().generate(owned.clone());
    let _ = images.clone().generate(&cow);
    let _ = images.clone().generate(cow.clone());
    let _ = images.clone().generate(boxed.clone());
    let _ = images.clone().generate(&arc);
    let _ = images.clone().generate(arc);
    let _ = images.clone().generate(rc);
    for each in &[text, "a ship"] {
        let _ = images.clone().generate(each).clone();
    }
    let _ = images.edit(Input::path("a.png")).prompt(cow);
    let _ = parameters::Prompt::new(boxed);
}

fn images_of_every_type(client: &Client, path: &Path, path_buf: &PathBuf, bytes: &[u8], vec: Vec<u8>, shared: Bytes) {
    let (images, input) = (client.images(), Input::path(path));
    let edit = images.clone().edit(bytes);
    let _ = images.clone().edit(path);
    let _ = images.clone().edit(path_buf);
    let _ = images.clone().edit(path_buf.clone());
    let _ = images.clone().edit(&vec);
    let _ = images.clone().edit(vec.clone());
    let _ = images.clone().edit(&shared);
    let _ = images.clone().edit(shared.clone());
    let _ = images.clone().edit(&input);
    let _ = images.clone().edit(vec![input.clone()].as_slice());
    let _ = images.edit(include_bytes!("pass.rs"));
    let _ = edit.clone().mask(bytes).mask(path).mask(path_buf).mask(path_buf.clone()).mask(&input).mask(input);
    let _ = edit.mask(&vec).mask(vec).mask(&shared).mask(shared).mask(include_bytes!("pass.rs"));
}
