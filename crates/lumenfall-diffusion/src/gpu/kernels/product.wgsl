// out = act(x·Wᵀ * factor + b). One of the bodies follows.
struct P {
    x: u32, w: u32, b: u32, $POSITIONS
    rows: u32, outputs: u32, inputs: u32,
    // The first row of this call, the columns of the output matrix, and the column of the weight's first row.
    first: u32, stride: u32, column: u32,
    $PARAMETERS
}
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> x: array<$X>;
@group(0) @binding(1) var<storage, read> w: array<$W>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
$BUFFERS
@group(0) @binding($OUT) var<storage, read_write> out: array<f32>;
$WEIGHT
$INPUT
$ACT
