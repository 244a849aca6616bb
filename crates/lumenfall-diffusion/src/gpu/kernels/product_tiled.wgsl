// A workgroup computes 64×64 values. A thread computes 4×4: each 16th row and each 16th column. All values are f32.
// 16 inputs of each row of x and of W: four vectors, each written by one thread. A fifth one distributes the rows over the memory banks.
const STRIDE = 5u;
var<workgroup> xs: array<vec4<f32>, 64u * STRIDE>;
var<workgroup> ws: array<vec4<f32>, 64u * STRIDE>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = thread % 16u;
    let row = thread / 16u;
    let load_row = thread / 4u;
    let load_vector = thread % 4u;
    let m0 = p.first + group.y * 64u;
    let n0 = group.x * 64u;
    let m = m0 + load_row;
    let n = n0 + load_row;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    for (var k0 = 0u; k0 < p.inputs; k0 += 16u) {
        let k = k0 + load_vector * 4u;
        var x = vec4<f32>();
        var w = vec4<f32>();
        if (m < p.rows) {
            x = x4(m, k);
        }
        if (n < p.outputs) {
            w = w4(n, k);
        }
        xs[load_row * STRIDE + load_vector] = x;
        ws[load_row * STRIDE + load_vector] = w;
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) {
            let w0 = ws[column * STRIDE + i];
            let w1 = ws[(column + 16u) * STRIDE + i];
            let w2 = ws[(column + 32u) * STRIDE + i];
            let w3 = ws[(column + 48u) * STRIDE + i];
            let x0 = xs[row * STRIDE + i];
            let x1 = xs[(row + 16u) * STRIDE + i];
            let x2 = xs[(row + 32u) * STRIDE + i];
            let x3 = xs[(row + 48u) * STRIDE + i];
            let c0 = vec4(w0.x, w1.x, w2.x, w3.x);
            let c1 = vec4(w0.y, w1.y, w2.y, w3.y);
            let c2 = vec4(w0.z, w1.z, w2.z, w3.z);
            let c3 = vec4(w0.w, w1.w, w2.w, w3.w);
            a0 = fma(vec4(x0.w), c3, fma(vec4(x0.z), c2, fma(vec4(x0.y), c1, fma(vec4(x0.x), c0, a0))));
            a1 = fma(vec4(x1.w), c3, fma(vec4(x1.z), c2, fma(vec4(x1.y), c1, fma(vec4(x1.x), c0, a1))));
            a2 = fma(vec4(x2.w), c3, fma(vec4(x2.z), c2, fma(vec4(x2.y), c1, fma(vec4(x2.x), c0, a2))));
            a3 = fma(vec4(x3.w), c3, fma(vec4(x3.z), c2, fma(vec4(x3.y), c1, fma(vec4(x3.x), c0, a3))));
        }
        workgroupBarrier();
    }
    let sums = array<vec4<f32>, 4>(a0, a1, a2, a3);
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            let i = m0 + row + 16u * r;
            let j = n0 + column + 16u * c;
            if (i < p.rows && j < p.outputs) {
                out[i * p.stride + p.column + j] = act(sums[r][c] * $FACTOR + $BIAS);
            }
        }
    }
}
