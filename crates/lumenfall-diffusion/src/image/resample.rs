//! Scaling of images, with the arithmetic of Pillow: 8-bit samples, rounded between the two passes.

use std::f64::consts::PI;

/// The number of fractional bits of a weight.
const PRECISION: u32 = 22;
/// The Lanczos filter is 0 beyond this distance, in pixels of the smaller image.
const SUPPORT: f64 = 3.0;

/// The source pixels that one target pixel combines.
struct Window {
    start: usize,
    /// One weight for each source pixel, as a fixed-point number.
    weights: Vec<i32>,
}

/// Scales rows of interleaved samples from one width and height to another. The channels are independent: those of
/// transparent pixels contribute as much as others.
pub(super) fn lanczos<const CHANNELS: usize>(samples: &[u8], from: (u32, u32), to: (u32, u32)) -> Vec<u8> {
    let mut pixels = samples.as_chunks::<CHANNELS>().0.to_vec();
    if from.0 != to.0 {
        let windows = windows(from.0, to.0);
        let row = |row: &[[u8; CHANNELS]]| {
            let target = |window: &Window| window.combine(row.iter().skip(window.start));
            windows.iter().map(target).collect::<Vec<_>>()
        };
        pixels = pixels.chunks_exact(from.0 as usize).flat_map(row).collect();
    }
    if from.1 != to.1 {
        let width = to.0 as usize;
        let row = |window: Window| {
            let source = pixels.get(window.start * width..).unwrap_or_default();
            (0..width).map(|x| window.combine(source.iter().skip(x).step_by(width))).collect::<Vec<_>>()
        };
        pixels = windows(from.1, to.1).into_iter().flat_map(row).collect();
    }
    pixels.into_flattened()
}

impl Window {
    fn combine<'a, const CHANNELS: usize>(&self, source: impl Iterator<Item = &'a [u8; CHANNELS]>) -> [u8; CHANNELS] {
        let mut sums = [1 << (PRECISION - 1); CHANNELS];
        for (weight, pixel) in self.weights.iter().zip(source) {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += weight * i32::from(*value));
        }
        sums.map(|sum| (sum >> PRECISION).clamp(0, 255) as u8)
    }
}

/// Returns the window of each target pixel in a row of `to` pixels.
fn windows(from: u32, to: u32) -> Vec<Window> {
    let scale = f64::from(from) / f64::from(to);
    // A smaller image needs a wider filter, which covers all source pixels.
    let filter_scale = scale.max(1.0);
    let support = SUPPORT * filter_scale;
    let window = |target| {
        let center = (f64::from(target) + 0.5) * scale;
        let start = (center - support + 0.5).max(0.0) as u32;
        let end = ((center + support + 0.5) as u32).min(from);
        let weight = |source| filter((f64::from(source) - center + 0.5) / filter_scale);
        let weights: Vec<_> = (start..end).map(weight).collect();
        let total: f64 = weights.iter().sum();
        let fixed = |weight: f64| (weight / total * f64::from(1 << PRECISION)).round() as i32;
        Window { start: start as usize, weights: weights.into_iter().map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

fn filter(distance: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
    if distance.abs() < SUPPORT { sinc(distance) * sinc(distance / SUPPORT) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::lanczos;

    #[test]
    fn images_are_scaled_as_with_pillow() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images.safetensors");
        let file = std::fs::read(file).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let pixels = |name: &str| tensors.tensor(&format!("resize/{name}")).unwrap().data().to_vec();
        let source = pixels("source");
        for size in [(16, 16), (96, 80), (61, 20), (150, 43), (7, 90), (1, 1)] {
            let resized = lanczos::<3>(&source, (61, 43), size);
            assert!(resized == pixels(&format!("{}x{}", size.0, size.1)), "{size:?}");
        }
        let gray: Vec<u8> = source.iter().copied().step_by(3).collect();
        assert!(lanczos::<1>(&gray, (61, 43), (20, 30)) == pixels("gray"));
        assert!(lanczos::<3>(&source, (61, 43), (61, 43)) == source);
    }
}
