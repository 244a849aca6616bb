// The number of values, their mean, and the sum of squared differences from it, of one group of channels in one chunk of pixels
// of a band per workgroup.
struct P { x: u32, pixels: u32, channels: u32, size: u32, chunk: u32, chunks: u32, count: u32, first: u32, all: u32 }
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
var<workgroup> part: array<f32, 128>;

fn total(thread: u32, value: f32) -> f32 {
    part[thread] = value;
    workgroupBarrier();
    for (var step = 64u; step > 0u; step >>= 1u) {
        if (thread < step) {
            part[thread] += part[thread + step];
        }
        workgroupBarrier();
    }
    let sum = part[0];
    workgroupBarrier();
    return sum;
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let index = workgroup.y * workgroups.x + workgroup.x;
    if (index >= p.count) {
        return;
    }
    let group = index / p.chunks;
    let pixel = (index % p.chunks) * p.chunk;
    let count = min(p.chunk, p.pixels - pixel) * p.size;
    let first = p.x + pixel * p.channels + group * p.size;
    var sum = 0.0;
    for (var i = thread; i < count; i += 128u) {
        sum += x[first + i / p.size * p.channels + i % p.size];
    }
    let mean = total(thread, sum) / f32(count);
    var squares = 0.0;
    for (var i = thread; i < count; i += 128u) {
        let difference = x[first + i / p.size * p.channels + i % p.size] - mean;
        squares += difference * difference;
    }
    squares = total(thread, squares);
    if (thread == 0u) {
        let at = (group * p.all + p.first + index % p.chunks) * 3u;
        out[at] = f32(count);
        out[at + 1u] = mean;
        out[at + 2u] = squares;
    }
}
