// A workgroup computes 64×64 values, a thread 4×4. All values are f32.
// Four rows of x, and four rows of W, for each of 16 inputs.
var<workgroup> xs: array<vec4<f32>, 256>;
var<workgroup> ws: array<vec4<f32>, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = thread % 16u;
    let row = thread / 16u;
    let load_row = thread / 4u;
    let load_input = thread % 4u * 4u;
    let m0 = p.first + group.y * 64u;
    let n0 = group.x * 64u;
    let m = m0 + load_row;
    let n = n0 + load_row;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    for (var k0 = 0u; k0 < p.inputs; k0 += 16u) {
        let k = k0 + load_input;
        var a = vec4<f32>();
        var c = vec4<f32>();
        if (m < p.rows) {
            a = x4(m, k);
        }
        if (n < p.outputs) {
            c = w4(n, k);
        }
        for (var i = 0u; i < 4u; i++) {
            xs[(load_input + i) * 16u + load_row / 4u][load_row % 4u] = a[i];
            ws[(load_input + i) * 16u + load_row / 4u][load_row % 4u] = c[i];
        }
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            let weight = ws[i * 16u + column];
            let value = xs[i * 16u + row];
            a0 = fma(vec4(value.x), weight, a0);
            a1 = fma(vec4(value.y), weight, a1);
            a2 = fma(vec4(value.z), weight, a2);
            a3 = fma(vec4(value.w), weight, a3);
        }
        workgroupBarrier();
    }
    let sums = array<vec4<f32>, 4>(a0, a1, a2, a3);
    for (var r = 0u; r < 4u; r++) {
        for (var c = 0u; c < 4u; c++) {
            let i = m0 + row * 4u + r;
            let j = n0 + column * 4u + c;
            if (i < p.rows && j < p.outputs) {
                out[i * p.stride + p.column + j] = act(sums[r][c] * $FACTOR + $BIAS);
            }
        }
    }
}
