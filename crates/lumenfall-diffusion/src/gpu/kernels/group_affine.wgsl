// The scale and the shift of each channel, from the statistics of the chunks of its group. One workgroup for a group.
// Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979).
struct P {
    statistics: u32, weight: u32, bias: u32,
    channels: u32, size: u32, chunks: u32, eps: f32,
}
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> statistics: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
// The number of values, their mean, and the sum of the squared differences.
var<workgroup> part: array<vec3<f32>, 64>;

fn joined(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
    let count = a.x + b.x;
    if (count == 0.0) {
        return a;
    }
    let difference = b.y - a.y;
    return vec3(count, a.y + difference * (b.x / count), a.z + b.z + difference * difference * (a.x * b.x / count));
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let group = workgroup.x;
    var sum = vec3<f32>();
    for (var i = thread; i < p.chunks; i += 64u) {
        let at = p.statistics + (group * p.chunks + i) * 3u;
        sum = joined(sum, vec3(statistics[at], statistics[at + 1u], statistics[at + 2u]));
    }
    part[thread] = sum;
    workgroupBarrier();
    for (var step = 32u; step > 0u; step >>= 1u) {
        if (thread < step) {
            part[thread] = joined(part[thread], part[thread + step]);
        }
        workgroupBarrier();
    }
    let all = part[0];
    let factor = inverseSqrt(all.z / all.x + p.eps);
    for (var i = thread; i < p.size; i += 64u) {
        let channel = group * p.size + i;
        let scale = factor * weight[p.weight + channel];
        out[channel] = scale;
        out[p.channels + channel] = bias[p.bias + channel] - all.y * scale;
    }
}
