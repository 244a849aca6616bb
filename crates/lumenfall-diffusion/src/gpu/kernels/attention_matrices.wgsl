enable f16;
enable wgpu_cooperative_matrix;
// Attention of one head for QUERIES queries with cooperative matrices, over tiles of as many keys. Each of 4 subgroups computes
// the products of SIDE queries. Between the products, PARTS threads share the values of one query. A matrix cannot be
// multiplied by a factor for each row, so the sums over all tiles are in the registers of these threads.
// Dao et al., "FlashAttention" (2022).
struct P {
    q: u32, k: u32, v: u32,
    queries: u32, keys: u32, width: u32, first: u32, scale: f32,
}
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
const SIDE = $SIDEu;
const SUBGROUP = $SUBGROUPu;
const THREADS = 4u * SUBGROUP;
const PARTS = SUBGROUP / SIDE;
const QUERIES = 4u * SIDE;
const HEAD = $HEADu;
const VECTORS = HEAD / 4u;
// The lengths of rows in workgroup memory, with padding that distributes them over the memory banks.
const STRIDE = VECTORS + 2u;
const SUM_STRIDE = max(QUERIES, HEAD) + 4u;
const WEIGHT_STRIDE = QUERIES + 8u;
var<workgroup> ks: array<vec4<f16>, QUERIES * STRIDE>;
var<workgroup> vs: array<vec4<f16>, QUERIES * STRIDE>;
var<workgroup> sums: array<f32, QUERIES * SUM_STRIDE>;
var<workgroup> weights: array<f16, QUERIES * WEIGHT_STRIDE>;
var<workgroup> shared_values: array<f32, THREADS>;

// Values beyond the range of f16 would be infinite.
fn to_f16(value: vec4<f32>) -> vec4<f16> {
    return vec4<f16>(clamp(value, vec4(-65504.0), vec4(65504.0)));
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) subgroup_id: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let stride = p.width / 4u;
    let column = group.y * VECTORS;
    let first_query = p.first + group.x * QUERIES;
    // A driver may choose other subgroups than those of SUBGROUP threads. There, an id may exceed 3.
    let first_row = subgroup_id % 4u * SIDE;
    for (var i = thread; i < QUERIES * VECTORS; i += THREADS) {
        let query = first_query + i / VECTORS;
        var value = vec4<f32>();
        if (query < p.queries) {
            value = q[p.q / 4u + query * stride + column + i % VECTORS] * p.scale;
        }
        ks[i / VECTORS * STRIDE + i % VECTORS] = to_f16(value);
    }
    workgroupBarrier();
    let first_q = first_row * STRIDE;
$QUERIES
    workgroupBarrier();

    let row = thread / PARTS;
    let part = thread % PARTS;
    var greatest = -1e30;
    var total = 0.0;
    var values: array<f32, HEAD / PARTS>;
    for (var i = 0u; i < HEAD / PARTS; i++) {
        values[i] = 0.0;
    }
    for (var first = 0u; first < p.keys; first += QUERIES) {
        for (var i = thread; i < QUERIES * VECTORS; i += THREADS) {
            let at = first + i / VECTORS;
            var key = vec4<f32>();
            var value = vec4<f32>();
            if (at < p.keys) {
                key = k[p.k / 4u + at * stride + column + i % VECTORS];
                value = v[p.v / 4u + at * stride + column + i % VECTORS];
            }
            ks[i / VECTORS * STRIDE + i % VECTORS] = to_f16(key);
            vs[i / VECTORS * STRIDE + i % VECTORS] = to_f16(value);
        }
        workgroupBarrier();
        let first_sum = first_row * SUM_STRIDE;
        let sum_stride = SUM_STRIDE;
$SCORES
        workgroupBarrier();
        let keys = min(QUERIES, p.keys - first);
        var new_greatest = greatest;
        for (var j = part; j < keys; j += PARTS) {
            new_greatest = max(new_greatest, sums[row * SUM_STRIDE + j]);
        }
        shared_values[thread] = new_greatest;
        workgroupBarrier();
        for (var i = 0u; i < PARTS; i++) {
            new_greatest = max(new_greatest, shared_values[row * PARTS + i]);
        }
        let factor = exp(greatest - new_greatest);
        greatest = new_greatest;
        total *= factor;
        for (var j = part; j < QUERIES; j += PARTS) {
            var weight = 0.0;
            if (j < keys) {
                weight = exp(sums[row * SUM_STRIDE + j] - greatest);
            }
            total += weight;
            weights[row * WEIGHT_STRIDE + j] = f16(weight);
        }
        workgroupBarrier();
        let first_weight = first_row * WEIGHT_STRIDE;
$VALUES
        workgroupBarrier();
        for (var i = 0u; i < HEAD / PARTS; i++) {
            values[i] = fma(values[i], factor, sums[row * SUM_STRIDE + i * PARTS + part]);
        }
    }
    workgroupBarrier();
    shared_values[thread] = total;
    workgroupBarrier();
    total = 0.0;
    for (var i = 0u; i < PARTS; i++) {
        total += shared_values[row * PARTS + i];
    }
    let query = first_query + row;
    if (query < p.queries) {
        for (var i = 0u; i < HEAD / PARTS; i++) {
            // With other subgroups, the values are wrong. The self-test, and the check of each image, detect NaN.
            let value = select(bitcast<f32>(p.keys | 0x7fc00000u), values[i] / total, subgroups == 4u);
            out[query * p.width + group.y * HEAD + i * PARTS + part] = value;
        }
    }
}
