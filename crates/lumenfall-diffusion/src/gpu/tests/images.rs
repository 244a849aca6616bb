//! Convolutions and group norms of images.

use lumenfall_kernels::{ConvShape, Image, reference};

use super::*;

#[test]
fn group_norm_matches() {
    let weights = random();
    let scope = weights.root().at("norm");
    let norm = GroupNorm::load(&scope, 4, 24, 1e-6).unwrap();
    let (weight, bias) = (scope.tensor("weight", &[24]).unwrap(), scope.tensor("bias", &[24]).unwrap());
    // The second image needs several chunks of pixels for each group.
    for (height, width) in [(3, 5), (90, 61)] {
        let x = normal(21, &[height, width, 24]).map(|value| value + 0.5);
        let expected = reference::group_norm(x.values(), weight.values(), bias.values(), 4, 1e-6, false);
        assert_same(1e-6, norm.forward(&unaligned(&x)), &expected);
    }
}

/// Returns an image of twice the width and height, in which each pixel is repeated.
fn doubled(x: &Tensor) -> Tensor {
    let [height, width, channels] = x.dims().unwrap();
    let pixel = |row, column| (row / 2 * width + column / 2) * channels;
    let pixels = (0..2 * height).flat_map(|row| (0..2 * width).map(move |column| pixel(row, column)));
    let values = pixels.flat_map(|pixel| x.values()[pixel..pixel + channels].iter().copied()).collect();
    Tensor::new(values, &[2 * height, 2 * width, channels]).unwrap()
}

#[test]
fn convolutions_match_for_images_of_any_shape() {
    let weights = random();
    let scope = weights.root().at("conv");
    let shape =
        |kernel, stride, padding_before, padding_after| ConvShape { kernel, stride, padding_before, padding_after };
    for channels in [8, 3] {
        let convolutions = [
            (12, shape(3, 1, 1, 1), Conv2d::load(&scope, channels, 12, 3).unwrap()),
            (5, shape(1, 1, 0, 0), Conv2d::load(&scope, channels, 5, 1).unwrap()),
            (channels, shape(3, 2, 0, 1), Conv2d::load_downsample(&scope, channels).unwrap()),
        ];
        for (height, width) in [(2, 2), (7, 13), (33, 20)] {
            let x = normal(19, &[height, width, channels]);
            for (outputs, shape, conv) in &convolutions {
                let weight = scope.tensor("weight", &[*outputs, channels, shape.kernel, shape.kernel]).unwrap();
                let bias = scope.tensor("bias", &[*outputs]).unwrap();
                let expected = |x: &Tensor| {
                    let [height, width, channels] = x.dims().unwrap();
                    let image = Image { values: x.values(), height, width, channels };
                    reference::conv2d(image, *shape, weight.values(), bias.values())
                };
                assert_same(of_product(1e-6), conv.forward(&unaligned(&x)), &expected(&x));
                if shape.stride == 1 {
                    assert_same(of_product(1e-6), conv.forward_upsampled(&x), &expected(&doubled(&x)));
                }
            }
        }
    }
}

#[test]
fn convolutions_of_normalized_images_match() {
    let weights = random();
    let scope = weights.root().at("conv");
    let (conv, shortcut) = (Conv2d::load(&scope, 8, 12, 3).unwrap(), Conv2d::load(&scope, 8, 12, 1).unwrap());
    let norm = GroupNorm::load(&scope.at("norm"), 4, 8, 1e-6).unwrap();
    let (scale, shift) = ["weight", "bias"].map(|name| scope.at("norm").tensor(name, &[8]).unwrap()).into();
    let x = normal(19, &[7, 13, 8]);
    let normalized = reference::group_norm(x.values(), scale.values(), shift.values(), 4, 1e-6, true);
    let normalized: Vec<f32> = normalized.into_iter().map(|value| value as f32).collect();
    let expected = |values: &[f32], kernel: usize| {
        let weight = scope.tensor("weight", &[12, 8, kernel, kernel]).unwrap();
        let shape = ConvShape { kernel, stride: 1, padding_before: kernel / 2, padding_after: kernel / 2 };
        let image = Image { values, height: 7, width: 13, channels: 8 };
        reference::conv2d(image, shape, weight.values(), scope.tensor("bias", &[12]).unwrap().values())
    };
    let main = expected(&normalized, 3);
    assert_same(of_product(1e-6), conv.forward_normalized(&norm, &x), &main);
    let residual = normal(20, &[7, 13, 12]);
    let sum: Vec<f64> = main.iter().zip(residual.values()).map(|(a, b)| a + f64::from(*b)).collect();
    assert_same(of_product(1e-6), conv.add_normalized(&norm, &x, residual), &sum);
    let (a, b) = conv.forward_with_shortcut(&norm, &shortcut, x.clone()).unwrap();
    assert_same(of_product(1e-6), Ok(a), &main);
    assert_same(of_product(1e-6), Ok(b), &expected(x.values(), 1));
}

#[test]
fn images_in_bands_equal_whole_images() {
    let outputs = |gpu: Gpu, are_bands: bool| -> Vec<Tensor> {
        let weights = Weights::random().on(&placement_on(&gpu));
        let scope = weights.root();
        let conv = Conv2d::load(&scope.at("conv"), 8, 12, 3).unwrap();
        let shortcut = Conv2d::load(&scope.at("shortcut"), 8, 12, 1).unwrap();
        let second = Conv2d::load(&scope.at("second"), 12, 12, 3).unwrap();
        let down = Conv2d::load_downsample(&scope.at("down"), 12).unwrap();
        let norm = |name: &str, channels| GroupNorm::load(&scope.at(name), 4, channels, 1e-6).unwrap();
        let (norm, second_norm) = (norm("norm", 8), norm("second_norm", 12));
        let x = Tensor::on_gpu(normal(32, &[7, 11, 8]).view(&gpu).unwrap(), &[7, 11, 8]).unwrap();
        let up = Conv2d::load(&scope.at("up"), 8, 8, 3).unwrap().forward_upsampled(&x).unwrap();
        let (h, residual) = conv.forward_with_shortcut(&norm, &shortcut, up.clone()).unwrap();
        let sum = second.add_normalized(&second_norm, &h, residual.clone()).unwrap();
        let images = [
            activate(add(sum.clone(), &h).unwrap(), Activation::Relu).unwrap(),
            down.forward(&sum).unwrap(),
            conv.forward(&up).unwrap(),
            up,
            h,
            residual,
            sum.rows(3..12).unwrap(),
            sum,
        ];
        assert!(images.iter().all(|image| (image.bands().len() > 1) == are_bands));
        let [.., sum] = &images;
        let copies = [
            sum.permute([2, 0, 1]).unwrap(),
            sum.reshape(&[14 * 22, 12]).unwrap(),
            second_norm.forward(sum).unwrap(),
            Tensor::concat(&[sum, sum]).unwrap(),
        ];
        images.iter().chain(&copies).map(|tensor| tensor.on_cpu().unwrap()).collect()
    };
    // The bands have several rows, and the last one has fewer.
    let bands = outputs(unshared_in_bands(4 * 22 * 12 * 3), true);
    for (index, (band, whole)) in bands.iter().zip(outputs(unshared(), false)).enumerate() {
        assert_eq!(band.shape(), whole.shape());
        // The statistics of a group are joined in another order, which can change the rounding of factors to f16.
        let difference = greatest(band.values().iter().zip(whole.values()).map(|(a, b)| f64::from(a - b)));
        assert!(difference <= of_product(1e-5), "image {index} differs by {difference}");
    }
}
