//! Every file format and compression level of the schema results in such a file, or in an error that names the parameter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lumenfall::backend::Request;
use lumenfall::{Client, OutputFormat};
use lumenfall_diffusion::RgbImage;

use crate::spec;

/// Returns the parameter and the text of the expected error, or `None` if a file is expected.
fn expected_error(format: OutputFormat, compression: Option<u32>) -> Option<(&'static str, &'static str)> {
    match format {
        OutputFormat::Avif if !cfg!(feature = "avif") => Some(("output_format", "the feature `avif`")),
        OutputFormat::Png | OutputFormat::Gif if compression.is_some() => {
            Some(("output_compression", "jpeg, webp or avif"))
        }
        _ => None,
    }
}

#[tokio::test]
async fn every_output_format_and_compression_level_is_used_or_refused_by_name() {
    let client = Client::demo().unwrap();
    let mut original = None;
    for format in OutputFormat::ALL {
        let mut sizes = Vec::new();
        for compression in [None, Some(0), Some(1), Some(50), Some(99), Some(100)] {
            let case = format!("{format} {compression:?}");
            let mut request = spec(|spec| {
                (spec.options.output_format, spec.options.output_compression) = (Some(format), compression);
                spec.options.size = "64x64".parse().ok();
                spec.options.sampling.seed = Some(3);
            });
            request.prompt = "a red circle on a white background".into();
            let events = Arc::new(AtomicU32::new(0));
            let counter = Arc::clone(&events);
            let sent = client.images().generate_spec(request.clone()).inline();
            let sent = sent.on_progress(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            });
            let result = sent.send().await;
            let checked = client.backend().check(&Request::from(request));
            if let Some((parameter, message)) = expected_error(format, compression) {
                for error in [result.unwrap_err(), checked.unwrap_err()] {
                    assert_eq!(error.parameter(), Some(parameter), "{case}: {error}");
                    assert!(error.to_string().contains(message), "{case}: {error}");
                }
                assert_eq!(events.load(Ordering::Relaxed), 0, "{case} is refused before any work");
                continue;
            }
            checked.unwrap();
            let image = &result.unwrap()[0];
            assert_eq!(image.format(), Some(format), "{case}");
            assert_eq!(image.dimensions(), Some((64, 64)), "{case}");
            sizes.push(image.bytes().len());
            // The crate does not decode AVIF.
            if format != OutputFormat::Avif {
                let decoded = RgbImage::decode(image.bytes()).unwrap();
                let original = original.get_or_insert_with(|| decoded.clone());
                let differences =
                    decoded.pixels().iter().zip(original.pixels()).map(|(a, b)| f64::from(a.abs_diff(*b)));
                let mean = differences.sum::<f64>() / original.pixels().len() as f64;
                let is_lossless = matches!((format, compression), (OutputFormat::Png | OutputFormat::Webp, None));
                let limit = if is_lossless { 0.0 } else { 30.0 - f64::from(compression.unwrap_or(90)) * 0.28 };
                assert!(mean <= limit, "{case}: the mean difference is {mean}");
            }
        }
        // After the file without a level, the files become larger with each level.
        let by_level = sizes.get(1..).unwrap_or_default();
        assert!(
            by_level.is_sorted() && by_level.first() < by_level.last() || by_level.is_empty(),
            "{format}: {sizes:?}"
        );
    }
}

#[tokio::test]
async fn the_parameters_of_a_result_contain_its_format_and_quality() {
    let client = crate::client();
    for (format, compression, used) in [
        (OutputFormat::Gif, None, None),
        (OutputFormat::Webp, None, None),
        (OutputFormat::Webp, Some(40), Some(40)),
        (OutputFormat::Jpeg, Some(0), Some(1)),
    ] {
        let request = spec(|spec| {
            (spec.options.output_format, spec.options.output_compression) = (Some(format), compression);
        });
        let images = client.images().generate_spec(request).inline().send().await.unwrap();
        let parameters = images.metadata().parameters.clone().unwrap();
        assert_eq!((parameters.output_format, parameters.output_compression), (Some(format), used));
    }
}
