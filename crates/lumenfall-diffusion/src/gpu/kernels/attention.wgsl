// Attention of one head for 64 queries, one in each thread, over tiles of 32 keys. The head has 4 * $WIDTH values.
// Dao et al., "FlashAttention" (2022).
struct P {
    q: u32, k: u32, v: u32, bias: u32,
    queries: u32, keys: u32, width: u32, first: u32, scale: f32,
}
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
var<workgroup> ks: array<vec4<f32>, 32u * $WIDTH>;
var<workgroup> vs: array<vec4<f32>, 32u * $WIDTH>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let stride = p.width / 4u;
    let head = group.y;
    let column = head * $WIDTH;
    let query = p.first + group.x * 64u + thread;
    let live = query < p.queries;
    var values: array<vec4<f32>, $WIDTH>;
    var sums: array<vec4<f32>, $WIDTH>;
    for (var i = 0u; i < $WIDTH; i++) {
        sums[i] = vec4<f32>();
        values[i] = vec4<f32>();
        if (live) {
            values[i] = q[p.q / 4u + query * stride + column + i] * p.scale;
        }
    }
    var greatest = -1e30;
    var total = 0.0;
    for (var first = 0u; first < p.keys; first += 32u) {
        for (var i = thread; i < 32u * $WIDTH; i += 64u) {
            let row = first + i / $WIDTH;
            var key = vec4<f32>();
            var value = vec4<f32>();
            if (row < p.keys) {
                key = k[p.k / 4u + row * stride + column + i % $WIDTH];
                value = v[p.v / 4u + row * stride + column + i % $WIDTH];
            }
            ks[i] = key;
            vs[i] = value;
        }
        workgroupBarrier();
        var scores: array<f32, 32>;
        var new_greatest = greatest;
        for (var j = 0u; j < 32u; j++) {
            let key = first + j;
            var score = 0.0;
            for (var i = 0u; i < $WIDTH; i++) {
                score += dot(values[i], ks[j * $WIDTH + i]);
            }
            if (key >= p.keys || $MASKED) {
                score = -1e30;
            } else if (live) {
                score += $BIAS;
            }
            scores[j] = score;
            new_greatest = max(new_greatest, score);
        }
        let factor = exp(greatest - new_greatest);
        total *= factor;
        for (var i = 0u; i < $WIDTH; i++) {
            sums[i] *= factor;
        }
        for (var j = 0u; j < 32u; j++) {
            let weight = exp(scores[j] - new_greatest);
            total += weight;
            for (var i = 0u; i < $WIDTH; i++) {
                sums[i] = fma(vec4(weight), vs[j * $WIDTH + i], sums[i]);
            }
        }
        greatest = new_greatest;
        workgroupBarrier();
    }
    if (live) {
        for (var i = 0u; i < $WIDTH; i++) {
            out[query * stride + column + i] = sums[i] / total;
        }
    }
}
