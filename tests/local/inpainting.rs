//! Edits with a mask.

use lumenfall::backend::EditSpec;
use lumenfall::{Client, ErrorKind, Input};
use lumenfall_diffusion::{FileFormat, RgbImage};

use crate::{client, spec};

/// Returns a mask whose left half is transparent.
pub(crate) fn mask(width: u32, height: u32) -> Input {
    Input::bytes(png(width, height, |x, _| [0, 0, 0, if x < width / 2 { 0 } else { 255 }]))
}

/// Returns a PNG file with these values of red, green, blue and alpha.
fn png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 4]) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..height {
        (0..width).for_each(|x| pixels.extend(pixel(x, y)));
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgba);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    file
}

/// Pixels outside of the mask are those of the source, in an image whose sides are not multiples of 16.
#[tokio::test]
async fn only_transparent_pixels_of_the_mask_change() {
    let source = png(50, 37, |x, y| [(x * 5) as u8, (y * 6) as u8, (x * y) as u8, 255]);
    let mut edit = EditSpec::new(spec(|_| {}).model, Input::bytes(source.clone())).with_mask(mask(50, 37));
    (edit.options.sampling.steps, edit.options.sampling.seed) = (Some(4), Some(1));
    let images = client().images().edit_spec(edit).inline().send().await.unwrap();
    let (source, result) = (RgbImage::decode(&source).unwrap(), RgbImage::decode(images[0].bytes()).unwrap());
    assert_eq!((result.width(), result.height()), (50, 37));
    assert_eq!(images.metadata().size, "50x37".parse().ok());
    let (mut changed, mut kept) = (0, 0);
    let pixels = source.pixels().as_chunks::<3>().0.iter().zip(result.pixels().as_chunks::<3>().0);
    for (index, (before, after)) in pixels.enumerate() {
        match index % 50 < 25 {
            true => changed += u32::from(before != after),
            false => kept += u32::from(before == after),
        }
    }
    assert_eq!(kept, 25 * 37);
    assert!(changed > 20 * 37, "{changed} pixels changed");
}

/// An image with transparent pixels can be its own mask. Their colours belong to the source.
#[tokio::test]
async fn a_source_can_be_its_own_mask() {
    let image = png(32, 32, |x, _| [200, 100, 50, if x < 16 { 0 } else { 255 }]);
    let mut edit = EditSpec::new(spec(|_| {}).model, Input::bytes(image.clone())).with_mask(Input::bytes(image));
    (edit.options.sampling.steps, edit.options.sampling.seed) = (Some(2), Some(1));
    let draw =
        async |edit: EditSpec| client().images().edit_spec(edit).inline().send().await.unwrap()[0].bytes().clone();
    let own = draw(edit.clone()).await;
    edit.images = vec![Input::bytes(png(32, 32, |_, _| [200, 100, 50, 255]))];
    assert_eq!(own, draw(edit).await);
}

#[tokio::test]
async fn the_size_of_an_edit_with_a_mask_is_that_of_its_source() {
    let source = RgbImage::new(32, 32, vec![90; 32 * 32 * 3]).unwrap().encode(FileFormat::Png).unwrap();
    let mut edit = EditSpec::new(spec(|_| {}).model, Input::bytes(source)).with_mask(mask(32, 32));
    edit.options.sampling.steps = Some(1);
    edit.options.size = "48x32".parse().ok();
    let error = client().images().edit_spec(edit.clone()).send().await.unwrap_err();
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::Unsupported, Some("size")));
    assert!(error.to_string().contains("is 48, but with a mask the result has the source's size, 32x32"), "{error}");
    edit.options.size = "32x32".parse().ok();
    edit.options.sampling.strength = Some(1.0);
    client().images().edit_spec(edit).send().await.unwrap();
}

/// The demonstration model replaces the left shape of an image.
#[tokio::test]
async fn a_shape_is_replaced_by_another() {
    let client = Client::demo().unwrap();
    let prompt = "a red circle and a blue star on a white background";
    let source = client.images().generate(prompt).seed(0).steps(10).inline().send().await.unwrap()[0].bytes().clone();
    let edit = client.images().edit(Input::bytes(source.clone())).mask(mask(128, 128));
    let edit = edit.prompt("a green circle and a blue star on a white background").strength(1.0).seed(1).steps(10);
    let edited = edit.inline().send().await.unwrap()[0].bytes().clone();
    let count = |file: &[u8], is_colour: fn(&[u8; 3]) -> bool| {
        let image = RgbImage::decode(file).unwrap();
        image.pixels().as_chunks::<3>().0.iter().filter(|pixel| is_colour(pixel)).count()
    };
    let red = |[r, g, b]: &[u8; 3]| *r > 150 && *g < 100 && *b < 100;
    let green = |[r, g, b]: &[u8; 3]| *r < 100 && *g > 100 && *b < 100;
    let blue = |[r, g, b]: &[u8; 3]| *r < 100 && *g < 120 && *b > 150;
    assert!(count(&source, red) > 500 && count(&source, green) < 50 && count(&source, blue) > 300);
    assert!(count(&edited, red) < 50 && count(&edited, green) > 500 && count(&edited, blue) > 300);
}
