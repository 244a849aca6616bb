// out = the largest magnitude among the inputs of each pixel of a convolution, from those of the image's pixels.
struct P { x: u32, pixels: u32, height: u32, width: u32, new_width: u32, start: i32 }
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
$PIXEL

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let m = (group.y * groups.x + group.x) * 64u + thread;
    if (m >= p.pixels) {
        return;
    }
    var greatest = 0.0;
    for (var tap = 0u; tap < $TAPSu; tap++) {
        let at = pixel(m, tap);
        if (at >= 0) {
            greatest = max(greatest, x[p.x + u32(at)]);
        }
    }
    out[m] = greatest;
}
