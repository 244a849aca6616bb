//! Convolutions, as products whose left factor is read from the image.

use lumenfall_kernels::ConvShape;

use super::product::{Left, Right, product};
use super::shape::aligned;
use super::{Call, matrices, spread};
use crate::error::Result;
use crate::gpu::GpuWeight;
use crate::tensor::Tensor;

/// The rows of an image that a convolution computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The number of rows of the output.
    pub(crate) rows: usize,
    /// The first row that the first row of the output reads, after the repetition. A negative row is padding.
    pub(crate) start: i32,
}

/// Convolves an image `[height, width, in]` in which each pixel is repeated `repeat` times in both directions.
///
/// The weight is `[out, kernel, kernel, in]`. Rows outside of the image are zeros.
pub(crate) fn conv2d(
    weight: &GpuWeight,
    x: &Tensor,
    shape: ConvShape,
    repeat: usize,
    bias: &Tensor,
    Window { rows, start }: Window,
) -> Result<Tensor> {
    let gpu = weight.gpu();
    let ([height, width, channels], outputs) = (x.dims()?, bias.len());
    let ConvShape { kernel, stride, padding_before, .. } = shape;
    let new_width = shape.output_side(repeat * width);
    let vectors = channels.is_multiple_of(4);
    let view = x.view(gpu)?;
    let view = if vectors { aligned(gpu, view)? } else { view };
    let (element, step) = if vectors { ("vec4<f32>", 4) } else { ("f32", 1) };
    // Returns the index of the pixel at a kernel element, or a negative number outside of the image.
    let pixel = format!(
        "fn pixel(m: u32, tap: u32) -> i32 {{
    let row = i32(m / p.new_width * {stride}u + tap / {kernel}u) + p.start;
    let column = i32(m % p.new_width * {stride}u + tap % {kernel}u) - {padding_before};
    if (row < 0 || row >= i32({repeat}u * p.height) || column < 0 || column >= i32({repeat}u * p.width)) {{
        return -1;
    }}
    return row / {repeat} * i32(p.width) + column / {repeat};
}}"
    );
    // Returns the value, or the vector of values, of an input channel at a kernel element.
    let read = format!(
        "fn x1(m: u32, k: u32) -> {element} {{
    let at = pixel(m, k / p.channels);
    if (k >= p.inputs || at < 0) {{
        return {element}();
    }}
    return x[(p.x + u32(at) * p.channels + k % p.channels) / {step}u];
}}"
    );
    let four = match vectors {
        true => "return x1(m, k);",
        false => "return vec4(x1(m, k), x1(m, k + 1u), x1(m, k + 2u), x1(m, k + 3u));",
    };
    let (pixels, variant) = (rows * new_width, format!("{kernel} {stride} {padding_before} {repeat}"));
    let sizes = [height, width, new_width].map(|size| size as u32);
    let magnitudes = &|| {
        let of_pixels = matrices::magnitudes(gpu, &view, channels)?;
        let out = gpu.buffer(pixels)?;
        let taps = (kernel * kernel).to_string();
        gpu.call(&Call {
            name: format!("image magnitudes {variant}"),
            source: &|| include_str!("conv_magnitudes.wgsl").replace("$PIXEL", &pixel).replace("$TAPS", &taps),
            inputs: &[(&of_pixels).into()],
            output: &out.buffer,
            parameters: &[&[pixels as u32][..], &sizes, &[start.cast_unsigned()]].concat(),
            workgroups: spread(pixels.div_ceil(64) as u64),
            operations: (pixels * kernel * kernel) as u64,
        })?;
        Ok(out)
    };
    let left = Left {
        view: &view,
        rows: pixels,
        element,
        name: format!("image {vectors} {variant}"),
        source: format!("{pixel}\n{read}\nfn x4(m: u32, k: u32) -> vec4<f32> {{ {four} }}"),
        fields: "height: u32, width: u32, new_width: u32, start: i32, channels: u32,",
        parameters: [&sizes[..], &[start.cast_unsigned(), channels as u32]].concat(),
        magnitudes,
    };
    let inputs = kernel * kernel * channels;
    let right = Right::weight(weight, inputs, outputs);
    Tensor::on_gpu(product(gpu, weight.body(pixels), &left, right, Some(bias), None)?, &[rows, new_width, outputs])
}
