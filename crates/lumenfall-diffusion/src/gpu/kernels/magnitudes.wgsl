// out = the largest magnitude of each row, one workgroup for a row.
struct P { x: u32, rows: u32, width: u32 }
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
var<workgroup> part: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let row = group.y * groups.x + group.x;
    if (row >= p.rows) {
        return;
    }
    var greatest = 0.0;
    for (var i = thread; i < p.width; i += 64u) {
        greatest = max(greatest, abs(x[p.x + row * p.width + i]));
    }
    part[thread] = greatest;
    workgroupBarrier();
    for (var step = 32u; step > 0u; step >>= 1u) {
        if (thread < step) {
            part[thread] = max(part[thread], part[thread + step]);
        }
        workgroupBarrier();
    }
    if (thread == 0u) {
        out[row] = part[0];
    }
}
