// A workgroup computes a tile with cooperative matrices: 8 subgroups in 4 rows and 2 columns compute $ROWS×$COLUMNS matrices
// each, whose sums stay in registers. The factors are f16, the sums f32.
//
// xs and ws contain two pages. While the matrices of one page are multiplied, the values of the next one are read.
const SIDE = $SIDEu;
const SUBGROUP = $SUBGROUPu;
const THREADS = 8u * SUBGROUP;
const TILE_ROWS = 4u * $ROWSu * SIDE;
const TILE_COLUMNS = 2u * $COLUMNSu * SIDE;
// The inputs of a page, and the vectors of one row. Two more vectors distribute the rows over the memory banks.
const INPUTS = 2u * SIDE;
const VECTORS = INPUTS / 4u;
const STRIDE = VECTORS + 2u;
const X_PAGE = TILE_ROWS * STRIDE;
const W_PAGE = TILE_COLUMNS * STRIDE;
var<workgroup> xs: array<vec4<f16>, 2u * X_PAGE>;
var<workgroup> ws: array<vec4<f16>, 2u * W_PAGE>;
var<workgroup> sums: array<f32, 8u * SIDE * SIDE>;

// The biased exponent of the largest magnitude of a row.
fn row_exponent(m: u32) -> u32 {
    if (m >= p.rows) {
        return 127u;
    }
    return clamp(bitcast<u32>(magnitudes[p.magnitudes + m]) >> 23u, 7u, 254u);
}

// The power of two that brings the largest magnitude of a row to between 64 and 128, so that no value is infinite in f16.
fn scale_of(exponent: u32) -> f32 {
    return bitcast<f32>((260u - exponent) << 23u);
}

fn load_x(m: u32, k: u32, scale: f32) -> vec4<f16> {
    if (m >= p.rows) {
        return vec4<f16>();
    }
    return vec4<f16>(x4(m, k) * scale);
}

fn load_w(n: u32, k: u32) -> vec4<f16> {
    if (n >= p.outputs) {
        return vec4<f16>();
    }
    return vec4<f16>(w4(n, k));
}

// Writes the sums of the matrix whose first value is at row m0 and column n0.
fn write_sums(m0: u32, n0: u32, first: u32, lane: u32) {
    for (var index = lane; index < SIDE * SIDE; index += SUBGROUP) {
        let i = m0 + index / SIDE;
        let j = n0 + index % SIDE;
        if (i < p.rows && j < p.outputs) {
            // The reciprocal of the row's scale.
            let unscaled = sums[first + index] * bitcast<f32>((row_exponent(i) - 6u) << 23u);
            out[i * p.stride + p.column + j] = act(unscaled * $FACTOR + $BIAS);
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup_id: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let m0 = p.first + group.y * TILE_ROWS;
    let n0 = group.x * TILE_COLUMNS;
    // A driver may choose other subgroups than those of SUBGROUP threads. There, an id may exceed 7.
    let subgroup = subgroup_id % 8u;
    let row = subgroup / 2u * $ROWSu * SIDE;
    let column = subgroup % 2u * $COLUMNSu * SIDE;
    // The vector that a thread reads. It also reads those THREADS / VECTORS rows below, and so on.
    let load_row = thread / VECTORS;
    let load_vector = thread % VECTORS;
    var k = 4u * load_vector;
$DECLARE
$LOAD
    var page = 0u;
$STORE
    workgroupBarrier();
    for (var k0 = 0u; k0 < p.inputs; k0 += INPUTS) {
        let more = k0 + INPUTS < p.inputs;
        k += INPUTS;
        if (more) {
$LOAD
        }
        for (var vector = 0u; vector < VECTORS; vector += SIDE / 4u) {
            let first_x = page * X_PAGE + row * STRIDE + vector;
            let first_w = page * W_PAGE + column * STRIDE + vector;
$MULTIPLY
        }
        page = 1u - page;
        if (more) {
$STORE
        }
        workgroupBarrier();
    }
    let first_sum = subgroup * SIDE * SIDE;
    let side = SIDE;
$FINISH
    // Other subgroups would leave rows as they were. The self-test, and the check of each image, detect NaN.
    storageBarrier();
    if (subgroups != 8u) {
        for (var index = thread; index < TILE_ROWS * TILE_COLUMNS; index += THREADS) {
            let i = m0 + index / TILE_COLUMNS;
            let j = n0 + index % TILE_COLUMNS;
            if (i < p.rows && j < p.outputs) {
                out[i * p.stride + p.column + j] = bitcast<f32>(p.rows | 0x7fc00000u);
            }
        }
    }
}
