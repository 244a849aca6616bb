// Copies values of up to five dimensions. d0 to d4 are the dimensions of the output, s0 to s4 their strides in the input.
struct P {
    x: u32, count: u32, first: u32,
    d0: u32, d1: u32, d2: u32, d3: u32, d4: u32,
    s0: u32, s1: u32, s2: u32, s3: u32, s4: u32,
}
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (group.y * groups.x + group.x) * 256u + thread;
    if (i >= p.count) {
        return;
    }
    var rest = i;
    var source = p.x + (rest % p.d4) * p.s4;
    rest /= p.d4;
    source += (rest % p.d3) * p.s3;
    rest /= p.d3;
    source += (rest % p.d2) * p.s2;
    rest /= p.d2;
    source += (rest % p.d1) * p.s1;
    rest /= p.d1;
    source += rest * p.s0;
    out[p.first + i] = x[source];
}
