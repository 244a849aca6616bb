//! Valid requests.

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

/// Prompts of any text type, and images of any type that holds a file or a path.
fn arguments(client: &Client) {
    use std::borrow::Cow;
    use std::path::{Path, PathBuf};
    use std::{rc::Rc, sync::Arc};

    let text = String::from("a lighthouse");
    let generate = |builder: lumenfall::stable_diffusion_3_5_medium::Generate| drop(builder);
    let images = || client.images();
    generate(images().generate("a lighthouse"));
    generate(images().generate(&"a lighthouse"));
    generate(images().generate(&text));
    generate(images().generate(Cow::Borrowed(text.as_str())));
    generate(images().generate(&Cow::Borrowed(text.as_str())));
    generate(images().generate(Box::<str>::from("a lighthouse")));
    generate(images().generate(Arc::<str>::from("a lighthouse")));
    generate(images().generate(&Arc::<str>::from("a lighthouse")));
    generate(images().generate(Rc::<str>::from("a lighthouse")));
    generate(images().generate(text));

    let bytes = vec![0x89, b'P', b'N', b'G'];
    let _ = images().edit(include_bytes!("pass.rs")).mask(bytes.as_slice());
    let _ = images().edit(bytes.as_slice()).mask(Path::new("mask.png"));
    let _ = images().edit(Path::new("a.png")).mask(Input::path("mask.png"));
    let _ = images().edit(&PathBuf::from("a.png"));
    let _ = images().edit(PathBuf::from("a.png"));
    let _ = images().edit(bytes);
    let _ = images().edit([Input::path("a.png"), Input::path("b.png")]);
}

async fn generate_variations(client: &Client, side: u32, format: OutputFormat) -> Result<(), Error> {
    let base = client.images().generate("a lighthouse");
    let _ = base.clone().aspect_ratio(aspect_ratio!("16:9")).resolution(resolution!("1K")).pin(Replicate);
    let _ = base.clone().resolution(resolution!("4K")).aspect_ratio(aspect_ratio!("1:1"));
    let _ = base.clone().size(size!("16:9")).output_format(Png).n(count!(1));
    let _ = base.clone().output_format(Gif).n(literal!(parameters::N, 3));
    let _ = base.clone().try_size(Size::pixels(side, side)?)?.try_n(side)?;
    let _ = base.clone().try_output_format(format)?.output_compression(percent!(80));
    let _ = base.clone().sampling(Sampling { seed: Some(7), ..Sampling::default() });
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
