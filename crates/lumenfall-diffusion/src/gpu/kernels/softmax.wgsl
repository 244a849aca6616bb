// out = softmax(scale * x + bias) over each row, one workgroup for a row.
struct P { x: u32, bias: u32, rows: u32, keys: u32, first: u32, scale: f32 }
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
var<workgroup> part: array<f32, 128>;

fn score(row: u32, key: u32) -> f32 {
    let query = p.first + row;
    if ($MASKED) {
        return -1e30;
    }
    return p.scale * x[p.x + row * p.keys + key] + $BIAS;
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) {
        return;
    }
    var greatest = -1e30;
    for (var key = thread; key < p.keys; key += 128u) {
        greatest = max(greatest, score(row, key));
    }
    part[thread] = greatest;
    workgroupBarrier();
    for (var step = 64u; step > 0u; step >>= 1u) {
        if (thread < step) {
            part[thread] = max(part[thread], part[thread + step]);
        }
        workgroupBarrier();
    }
    greatest = part[0];
    workgroupBarrier();
    var sum = 0.0;
    for (var key = thread; key < p.keys; key += 128u) {
        sum += exp(score(row, key) - greatest);
    }
    part[thread] = sum;
    workgroupBarrier();
    for (var step = 64u; step > 0u; step >>= 1u) {
        if (thread < step) {
            part[thread] += part[thread + step];
        }
        workgroupBarrier();
    }
    let total = part[0];
    for (var key = thread; key < p.keys; key += 128u) {
        out[row * p.keys + key] = exp(score(row, key) - greatest) / total;
    }
}
