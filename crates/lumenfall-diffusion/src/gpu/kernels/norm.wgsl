// out = (x - mean) / sqrt(variance + eps) * (base + scale) + shift, one workgroup for a row.
struct P { x: u32, scale: u32, shift: u32, rows: u32, width: u32, eps: f32, base: f32 }
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> shift: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
var<workgroup> part: array<f32, $THREADS>;

fn total(thread: u32, value: f32) -> f32 {
    part[thread] = value;
    workgroupBarrier();
    for (var step = $THREADS / 2u; step > 0u; step >>= 1u) {
        if (thread < step) {
            part[thread] += part[thread + step];
        }
        workgroupBarrier();
    }
    let sum = part[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size($THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) {
        return;
    }
    let first = p.x + row * p.width;
    var mean = 0.0;
    for (var i = thread; i < p.width; i += $THREADS) {
        mean += x[first + i];
    }
    mean = $MEAN;
    var squares = 0.0;
    for (var i = thread; i < p.width; i += $THREADS) {
        let difference = x[first + i] - mean;
        squares += difference * difference;
    }
    let factor = inverseSqrt(total(thread, squares) / f32(p.width) + p.eps);
    for (var i = thread; i < p.width; i += $THREADS) {
        out[row * p.width + i] = (x[first + i] - mean) * factor * (p.base + scale[p.scale + i]) + $SHIFT;
    }
}
