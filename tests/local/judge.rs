//! Says what a picture of the demonstration model shows: the twin of `tools/judge.py`.

use std::sync::LazyLock;

use lumenfall_diffusion::Picture;

const MIN_IOU: f64 = 0.85;
const MIN_MARGIN: f64 = 0.03;
/// A picture whose pixels all lie closer to the background than this has no subject.
const MIN_CONTRAST: f64 = 40.0;

pub(crate) type Rgb = [f64; 3];

pub(crate) const COLOURS: [(&str, Rgb); 8] = [
    ("red", [220.0, 30.0, 30.0]),
    ("green", [30.0, 160.0, 50.0]),
    ("blue", [40.0, 70.0, 220.0]),
    ("yellow", [245.0, 215.0, 40.0]),
    ("orange", [245.0, 130.0, 20.0]),
    ("purple", [140.0, 40.0, 170.0]),
    ("cyan", [40.0, 200.0, 220.0]),
    ("pink", [250.0, 120.0, 190.0]),
];

pub(crate) const BACKGROUNDS: [(&str, Rgb); 4] = [
    ("white", [250.0, 250.0, 250.0]),
    ("black", [10.0, 10.0, 10.0]),
    ("gray", [128.0, 128.0, 128.0]),
    ("brown", [110.0, 65.0, 30.0]),
];

/// A test of points; `u` runs right and `v` down, and the shape is about one unit wide.
type Inside = fn(f64, f64) -> bool;

pub(crate) const SHAPES: [(&str, Inside); 6] = [
    ("circle", |u, v| u * u + v * v <= 0.25),
    ("square", |u, v| u.abs().max(v.abs()) <= 0.44),
    ("triangle", |u, v| v <= 0.4 && u.abs() <= 0.55 * (v + 0.52) / 0.92),
    ("star", inside_star),
    ("diamond", |u, v| u.abs() / 0.36 + v.abs() / 0.56 <= 1.0),
    ("cross", |u, v| u.abs().min(v.abs()) <= 0.16 && u.abs().max(v.abs()) <= 0.5),
];

/// What a picture shows.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) background: &'static str,
    /// None where there is no subject.
    pub(crate) colour: Option<&'static str>,
    /// None where there is no subject, or no shape fits well and clearly.
    pub(crate) shape: Option<&'static str>,
    /// Each shape with its best overlap, the best first; empty where there is no subject.
    pub(crate) fits: Vec<(f64, &'static str)>,
}

impl Verdict {
    /// How well a shape fits, 0 to 1.
    pub(crate) fn fit(&self, shape: &str) -> f64 {
        self.fits.iter().find(|(_, name)| *name == shape).map_or(0.0, |(overlap, _)| *overlap)
    }
}

/// The star's corners, the first one twice.
static STAR: LazyLock<[(f64, f64); 11]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let radius = if i.is_multiple_of(2) { 0.56 } else { 0.56 * 0.45 };
        let angle = std::f64::consts::PI * i as f64 / 5.0;
        (radius * angle.sin(), -radius * angle.cos())
    })
});

/// The even-odd rule over the star's ten edges.
fn inside_star(u: f64, v: f64) -> bool {
    if u.abs() > 0.56 || v.abs() > 0.56 {
        return false;
    }
    let mut inside = false;
    for edge in STAR.windows(2) {
        let ((x0, y0), (x1, y1)) = (edge[0], edge[1]);
        if (y0 > v) != (y1 > v) && u < x0 + (v - y0) * (x1 - x0) / (y1 - y0) {
            inside = !inside;
        }
    }
    inside
}

/// Area and centroid of each shape of width 1 about (0, 0).
static UNIT: LazyLock<[(f64, f64, f64); 6]> = LazyLock::new(|| {
    const GRID: usize = 200;
    const STEP: f64 = 1.2 / GRID as f64;
    let at = |cell: usize| (cell as f64 + 0.5) * STEP - 0.6;
    SHAPES.map(|(_, inside)| {
        let (area, x, y) = moments(GRID, |column, row| inside(at(column), at(row)));
        (area * STEP * STEP, x * STEP - 0.6, y * STEP - 0.6)
    })
});

fn distance(a: Rgb, b: Rgb) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
}

fn median(pixels: &[Rgb]) -> Rgb {
    std::array::from_fn(|channel| {
        let mut values: Vec<f64> = pixels.iter().map(|pixel| pixel[channel]).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
    })
}

fn nearest(rgb: Rgb, names: &[(&'static str, Rgb)]) -> &'static str {
    names.iter().min_by(|a, b| distance(a.1, rgb).total_cmp(&distance(b.1, rgb))).unwrap().0
}

pub(crate) fn judge(picture: &Picture) -> Verdict {
    let size = picture.width() as usize;
    assert_eq!(picture.height() as usize, size, "the judge takes square pictures");
    let pixels: Vec<Rgb> = picture.rgb().as_chunks::<3>().0.iter().map(|rgb| rgb.map(f64::from)).collect();
    let on_border =
        |i: usize| i < size || i >= size * (size - 1) || i.is_multiple_of(size) || (i + 1).is_multiple_of(size);
    let border: Vec<Rgb> = (0..pixels.len()).filter(|i| on_border(*i)).map(|i| pixels[i]).collect();
    let background = median(&border);
    let name = nearest(background, &BACKGROUNDS);

    let contrast = pixels.iter().map(|pixel| distance(*pixel, background)).fold(0.0, f64::max);
    if contrast < MIN_CONTRAST {
        return Verdict { background: name, colour: None, shape: None, fits: Vec::new() };
    }
    let subject: Vec<Rgb> =
        pixels.iter().copied().filter(|pixel| distance(*pixel, background) > contrast / 2.0).collect();
    let colour = median(&subject);

    // A pixel belongs to the subject if it lies past half of the way from the background's colour to the subject's.
    let way: Rgb = std::array::from_fn(|i| colour[i] - background[i]);
    let length: f64 = way.iter().map(|w| w * w).sum();
    let along = |pixel: &Rgb| -> f64 { (0..3).map(|i| (pixel[i] - background[i]) * way[i]).sum() };
    let mask: Vec<bool> = pixels.iter().map(|pixel| along(pixel) > 0.5 * length).collect();

    let mut fits: Vec<(f64, &'static str)> = SHAPES
        .iter()
        .zip(UNIT.iter())
        .map(|((name, inside), unit)| (best_iou(&mask, size, *inside, *unit), *name))
        .collect();
    fits.sort_by(|a, b| b.0.total_cmp(&a.0));
    let clear = fits[0].0 >= MIN_IOU && fits[0].0 - fits[1].0 >= MIN_MARGIN;
    let shape = clear.then_some(fits[0].1);
    Verdict { background: name, colour: Some(nearest(colour, &COLOURS)), shape, fits }
}

/// Area and centroid of the points for which `inside` holds, of a grid of `size`·`size` cells of width 1.
fn moments(size: usize, inside: impl Fn(usize, usize) -> bool) -> (f64, f64, f64) {
    let (mut area, mut x, mut y) = (0.0, 0.0, 0.0);
    for row in 0..size {
        for column in (0..size).filter(|column| inside(*column, row)) {
            (area, x, y) = (area + 1.0, x + column as f64 + 0.5, y + row as f64 + 0.5);
        }
    }
    (area, x / area, y / area)
}

/// Best overlap of the shape with the mask over sizes and places near those that the mask's moments suggest.
fn best_iou(mask: &[bool], size: usize, inside: Inside, (unit_area, unit_x, unit_y): (f64, f64, f64)) -> f64 {
    let (area, x, y) = moments(size, |column, row| mask[row * size + column]);
    let mut best: f64 = 0.0;
    for scale in [0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12] {
        let width = scale * (area / unit_area).sqrt();
        for (dx, dy) in (0..25).map(|i| (f64::from(i % 5 - 2), f64::from(i / 5 - 2))) {
            let (left, top) = (x - unit_x * width + dx, y - unit_y * width + dy);
            let (mut both, mut either) = (0u32, 0u32);
            let mut pixel = 0;
            for row in 0..size {
                let v = (row as f64 + 0.5 - top) / width;
                for column in 0..size {
                    let covered = inside((column as f64 + 0.5 - left) / width, v);
                    both += u32::from(mask[pixel] && covered);
                    either += u32::from(mask[pixel] || covered);
                    pixel += 1;
                }
            }
            best = best.max(f64::from(both) / f64::from(either));
        }
    }
    best
}

/// Draws a shape without any model.
fn drawn(inside: Inside, width: f64, colour: Rgb, background: Rgb) -> Picture {
    let rgb = (0..64 * 64).flat_map(|i| {
        let (u, v) = ((f64::from(i % 64) + 0.5 - 32.0) / width, (f64::from(i / 64) + 0.5 - 32.0) / width);
        if inside(u, v) { colour } else { background }.map(|value| value as u8)
    });
    Picture::from_rgb(64, 64, rgb.collect()).unwrap()
}

#[test]
fn the_judge_knows_every_shape_colour_and_background() {
    for (shape, inside) in SHAPES {
        for (i, (colour, rgb)) in COLOURS.into_iter().enumerate() {
            let (background, behind) = BACKGROUNDS[i % 4];
            let verdict = judge(&drawn(inside, 32.0, rgb, behind));
            assert_eq!((verdict.background, verdict.colour, verdict.shape), (background, Some(colour), Some(shape)));
        }
    }
}

#[test]
fn the_judge_lets_no_blob_pass() {
    // Between a circle and a square, an oval, two spots, and nothing.
    let rounded: Inside = |u, v| (u * u * u * u + v * v * v * v) <= 0.047;
    let oval: Inside = |u, v| u * u + v * v * 2.2 <= 0.25;
    let spots: Inside = |u, v| (u.abs() - 0.3) * (u.abs() - 0.3) + v * v <= 0.03;
    for blob in [rounded, oval, spots] {
        assert_eq!(judge(&drawn(blob, 32.0, COLOURS[0].1, BACKGROUNDS[0].1)).shape, None);
    }
    let nothing = judge(&drawn(|_, _| false, 32.0, COLOURS[0].1, BACKGROUNDS[1].1));
    assert_eq!((nothing.background, nothing.colour, nothing.shape), ("black", None, None));
}
