//! Conversion of colours to sRGB.

use moxcms::{ColorProfile, DataColorSpace, Layout, Transform8BitExecutor, TransformOptions};

use super::decode::Colors;

/// Converts the colours with their ICC profile. An invalid profile, and one of another colour space, is ignored, as in browsers.
pub(super) fn to_srgb(colors: Colors, profile: Option<&[u8]>) -> Vec<[u8; 3]> {
    let (samples, layout, space) = match &colors {
        Colors::Gray(samples) => (samples, Layout::Gray, DataColorSpace::Gray),
        Colors::Rgb(samples) => (samples, Layout::Rgb, DataColorSpace::Rgb),
        Colors::Cmyk(samples) => (samples, Layout::Rgba, DataColorSpace::Cmyk),
    };
    profile.and_then(|profile| converted(samples, profile, layout, space)).unwrap_or_else(|| without_profile(colors))
}

/// Returns `None` if the profile is unusable or the one of sRGB.
fn converted(samples: &[u8], profile: &[u8], layout: Layout, space: DataColorSpace) -> Option<Vec<[u8; 3]>> {
    let profile = ColorProfile::new_from_slice(profile).ok().filter(|profile| profile.color_space == space)?;
    let target = ColorProfile::new_srgb();
    let transform = profile.create_transform_8bit(layout, &target, Layout::Rgb, TransformOptions::default()).ok()?;
    if layout == Layout::Rgb && is_srgb(&*transform) {
        return None;
    }
    let mut pixels = vec![0; samples.len() / layout.channels() * 3];
    transform.transform(samples, &mut pixels).ok()?;
    Some(pixels.as_chunks().0.to_vec())
}

/// Checks whether a conversion changes colours by rounding only. Most profiles in files are the one of sRGB, and the
/// pixels of such a file must not change.
fn is_srgb(transform: &Transform8BitExecutor) -> bool {
    let ramps = (0..=u8::MAX).flat_map(|v| [[v, v, v], [v, 0, 0], [0, v, 0], [0, 0, v]]);
    let colors: Vec<u8> = ramps.flatten().collect();
    let mut converted = vec![0; colors.len()];
    let is_converted = transform.transform(&colors, &mut converted).is_ok();
    is_converted && colors.iter().zip(converted).all(|(value, converted)| value.abs_diff(converted) <= 1)
}

fn without_profile(colors: Colors) -> Vec<[u8; 3]> {
    match colors {
        Colors::Gray(samples) => samples.into_iter().map(|value| [value; 3]).collect(),
        Colors::Rgb(samples) => samples.as_chunks().0.to_vec(),
        Colors::Cmyk(samples) => {
            let on_black = |ink: u8, black: u8| ((255 - u32::from(ink)) * (255 - u32::from(black)) + 127) / 255;
            let to_rgb = |[c, m, y, k]: &[u8; 4]| [*c, *m, *y].map(|ink| on_black(ink, *k) as u8);
            samples.as_chunks().0.iter().map(to_rgb).collect()
        }
    }
}
