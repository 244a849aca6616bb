//! Matrix products with weights in any format.

use lumenfall_kernels::{Activation, Format};

use super::loaders::loader;
use super::shape::aligned;
use super::{Call, Input, activation, matrices};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu, GpuWeight, Matrices, View};
use crate::tensor::Tensor;

/// The number of rows of a weight that is a multiple of any body's tile. As many rows start at an aligned position.
const ALIGNED: usize = 128;

/// The minimum number of rows of a product with cooperative matrices. With fewer, most of each matrix would be empty.
const MATRIX_ROWS: usize = 16;

/// The number of operations of one dispatch. Larger products are split, so that none blocks a slow GPU for seconds.
const DISPATCHED_OPERATIONS: u64 = 100_000_000_000;

/// How the kernel of a product computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// In f32.
    Tiled,
    /// With cooperative matrices: the factors in f16, the sums in f32.
    Matrices(Matrices),
}

impl Body {
    /// Returns the number of rows and columns that a workgroup computes.
    fn tile(self) -> [usize; 2] {
        match self {
            Self::Tiled => [64, 64],
            Self::Matrices(matrices) => matrices.tile().map(|side| side as usize),
        }
    }
}

impl GpuWeight {
    /// Returns the body for a product of `rows` rows with the weight.
    pub(super) fn body(&self, rows: usize) -> Body {
        match self.gpu().matrices() {
            Some(matrices) if rows >= MATRIX_ROWS && self.fits_f16 => Body::Matrices(matrices),
            _ => Body::Tiled,
        }
    }
}

/// The left factor of a product.
pub(super) struct Left<'a> {
    pub(super) view: &'a View,
    /// The number of rows of the output.
    pub(super) rows: usize,
    /// The type of the elements of `x`.
    pub(super) element: &'static str,
    /// The name of `source`.
    pub(super) name: String,
    /// The function `x4`, which returns four inputs of a row.
    pub(super) source: String,
    /// The names of `parameters`, as fields in WGSL.
    pub(super) fields: &'static str,
    pub(super) parameters: Vec<u32>,
    /// Computes the largest magnitude of each row.
    pub(super) magnitudes: &'a dyn Fn() -> Result<View>,
}

/// The right factor of a product: rows of `inputs` values.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) buffer: &'a Buffer,
    pub(super) format: Format,
    /// A factor for each row.
    pub(super) factors: Option<&'a Tensor>,
    /// The index of the first value.
    pub(super) start: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

impl<'a> Right<'a> {
    pub(super) fn weight(weight: &'a GpuWeight, inputs: usize, outputs: usize) -> Self {
        let (buffer, format, factors) = (&*weight.buffer, weight.format, weight.factors.as_ref());
        Self { buffer, format, factors, start: 0, inputs, outputs }
    }

    /// Uses the values of a view as rows.
    pub(super) fn rows(view: &'a View, inputs: usize, outputs: usize) -> Self {
        let (buffer, start) = (&*view.buffer, view.start);
        Self { buffer, format: Format::F32, factors: None, start, inputs, outputs }
    }
}

/// Computes `activation(x·Wᵀ + b)`: `[tokens, in]` to `[tokens, out]`.
pub(crate) fn linear(
    gpu: &Gpu,
    x: &Tensor,
    weight: &GpuWeight,
    outputs: usize,
    bias: Option<&Tensor>,
    function: Option<Activation>,
) -> Result<Tensor> {
    let [tokens, _] = x.dims()?;
    linear_with(gpu, weight.body(tokens), x, weight, outputs, bias, function)
}

/// Does what [`linear`] does, with the given body.
pub(crate) fn linear_with(
    gpu: &Gpu,
    body: Body,
    x: &Tensor,
    weight: &GpuWeight,
    outputs: usize,
    bias: Option<&Tensor>,
    function: Option<Activation>,
) -> Result<Tensor> {
    let [tokens, inputs] = x.dims()?;
    let view = x.view(gpu)?;
    let right = Right::weight(weight, inputs, outputs);
    Tensor::on_gpu(multiply(gpu, body, &view, tokens, right, bias, function)?, &[tokens, outputs])
}

/// Computes `activation(x·Wᵀ + b)` for `x` with `rows` rows.
pub(super) fn multiply(
    gpu: &Gpu,
    body: Body,
    x: &View,
    rows: usize,
    right: Right<'_>,
    bias: Option<&Tensor>,
    function: Option<Activation>,
) -> Result<View> {
    if x.len != rows * right.inputs {
        return Err(gpu.error(format!("a product of {rows} rows of {} values received {}", right.inputs, x.len)));
    }
    let vectors = right.inputs.is_multiple_of(4);
    let aligned = if vectors { aligned(gpu, x.clone())? } else { x.clone() };
    let (element, source) = match vectors {
        true => (
            "vec4<f32>",
            "fn x4(m: u32, k: u32) -> vec4<f32> {
    if (k < p.inputs) {
        return x[(p.x + m * p.inputs + k) / 4u];
    }
    return vec4<f32>();
}",
        ),
        false => (
            "f32",
            "fn x4(m: u32, k: u32) -> vec4<f32> {
    var values = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        if (k + i < p.inputs) {
            values[i] = x[p.x + m * p.inputs + k + i];
        }
    }
    return values;
}",
        ),
    };
    let name = format!("rows {vectors}");
    let magnitudes = &|| matrices::magnitudes(gpu, &aligned, right.inputs);
    let (source, fields, parameters) = (source.into(), "", vec![]);
    let left = Left { view: &aligned, rows, element, name, source, fields, parameters, magnitudes };
    product(gpu, body, &left, right, bias, function)
}

/// Computes `activation(x·Wᵀ + b)`: `[rows, outputs]`.
pub(super) fn product(
    gpu: &Gpu,
    body: Body,
    left: &Left<'_>,
    right: Right<'_>,
    bias: Option<&Tensor>,
    function: Option<Activation>,
) -> Result<View> {
    let Right { format, inputs, outputs, .. } = right;
    if [bias, right.factors].into_iter().flatten().any(|values| values.len() != outputs) {
        return Err(gpu.error(format!("a product with {outputs} outputs has another number of biases or factors")));
    }
    let out = gpu.buffer(left.rows * outputs)?;
    let vectors = inputs.is_multiple_of(4) && right.start.is_multiple_of(4);
    let (weight_element, weight) = loader(format, vectors);
    let bias_view = bias.map(|bias| bias.view(gpu)).transpose()?;
    let factors = right.factors.map(|factors| factors.view(gpu)).transpose()?;
    let magnitudes = match body {
        Body::Tiled => None,
        Body::Matrices(_) => Some((left.magnitudes)()?),
    };
    // The buffers that only some products read, and their names.
    let optional = [("factors", factors.as_ref()), ("magnitudes", magnitudes.as_ref())];
    let optional: Vec<(&str, &View)> = optional.into_iter().filter_map(|(name, view)| Some((name, view?))).collect();
    let source = || {
        let (extensions, body) = match body {
            Body::Tiled => ("", include_str!("product_tiled.wgsl").to_owned()),
            Body::Matrices(matrices) => (matrices::EXTENSIONS, matrices::body(matrices)),
        };
        let positions: String = optional.iter().map(|(name, _)| format!("{name}: u32, ")).collect();
        let declare =
            |(binding, name)| format!("@group(0) @binding({binding}) var<storage, read> {name}: array<f32>;\n");
        let buffers: String = (3..).zip(optional.iter().map(|(name, _)| *name)).map(declare).collect();
        let template = format!("{extensions}{}{body}", include_str!("product.wgsl"));
        let template = template.replace("$PARAMETERS", left.fields).replace("$POSITIONS", &positions);
        let template = template.replace("$BUFFERS", &buffers).replace("$OUT", &(3 + optional.len()).to_string());
        let template = template.replace("$X", left.element).replace("$WEIGHT", &weight).replace("$W", weight_element);
        let template = template.replace("$INPUT", &left.source).replace("$ACT", activation(function));
        let template = template.replace("$FACTOR", if factors.is_some() { "factors[p.factors + j]" } else { "1.0" });
        template.replace("$BIAS", if bias.is_some() { "b[p.b + j]" } else { "0.0" })
    };
    let row_bytes = format.bytes_of(inputs).ok_or_else(|| gpu.error("a row of a weight is not whole blocks"))?;
    let start = format.bytes_of(right.start).ok_or_else(|| gpu.error("a weight does not start at a block"))?;
    // A driver limits the size of a binding.
    let most = usize::try_from(gpu.0.limits.max_storage_buffer_binding_size / 2).unwrap_or(usize::MAX);
    let part = (most / row_bytes.max(1) / ALIGNED * ALIGNED).clamp(ALIGNED, outputs.max(ALIGNED));
    let [tile_rows, tile_columns] = body.tile();
    let tiles = left.rows.div_ceil(tile_rows);
    let per_tile = 2 * (tile_rows * inputs * part.min(outputs)) as u64;
    let tiles_at_once = (DISPATCHED_OPERATIONS / per_tile.max(1)).max(1) as usize;
    for column in (0..outputs).step_by(part) {
        let columns = part.min(outputs - column);
        for first in (0..tiles).step_by(tiles_at_once) {
            let tiles = tiles_at_once.min(tiles - first);
            let weight = Input {
                buffer: right.buffer,
                start: (start + column * row_bytes) as u64,
                bytes: (columns * row_bytes) as u64,
            };
            let bias = bias_view.as_ref().map_or_else(|| left.view.into(), |bias| Input::after(bias, column));
            let mut read = vec![left.view.into(), weight, bias];
            read.extend(factors.as_ref().map(|factors| Input::after(factors, column)));
            read.extend(magnitudes.as_ref().map(Input::from));
            let sizes = [left.rows, columns, inputs, first * tile_rows, outputs, column];
            let mut parameters: Vec<u32> = sizes.iter().map(|size| *size as u32).collect();
            parameters.extend_from_slice(&left.parameters);
            gpu.call(&Call {
                name: format!(
                    "product {body:?} {} {format:?} {vectors} {} {} {function:?}",
                    left.name,
                    bias_view.is_some(),
                    factors.is_some()
                ),
                source: &source,
                inputs: &read,
                output: &out.buffer,
                parameters: &parameters,
                workgroups: [columns.div_ceil(tile_columns) as u64, tiles as u64],
                operations: per_tile * tiles as u64,
            })?;
        }
    }
    Ok(out)
}
