enable f16;
enable wgpu_cooperative_matrix;
// y = act(x·Wᵀ + b) on tensor cores: 8 subgroups (4×2), each MT×NT tiles of T×T; double-buffered f16 tiles as vec4<f16>, rows padded by 8 values.
struct P { m: u32, n: u32, k: u32, act: u32 }
var<immediate> p: P;
const T = $Tu; const K = 2u * T; const SG = $SGu; const THREADS = 8u * SG; const BM = 4u * $MTu * T; const BN = 2u * $NTu * T;
const KV = K / 4u; const RS = KV + 2u; const XB = BM * RS; const WB = BN * RS;
@group(0) @binding(0) var<storage, read> x: array<$XT>;
@group(0) @binding(1) var<storage, read> w: array<$WT>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<workgroup> xs: array<vec4<f16>, 2u * XB>;
var<workgroup> ws: array<vec4<f16>, 2u * WB>;
var<workgroup> ys: array<f32, 8u * T * T>;
$LOADER
fn lx(r: u32, k: u32) -> vec4<f16> { var a = vec4<f16>(); if (r < p.m) { a = vec4<f16>(x[(r * p.k + k) / 4u]); } return a; }
fn lw(r: u32, k: u32) -> vec4<f16> { var a = vec4<f16>(); if (r < p.n) { a = vec4<f16>(w4(r, k)); } return a; }
fn gelu(v: f32) -> f32 { let u = 0.7978845608 * (v + 0.044715 * v * v * v); return 0.5 * v * (1.0 + tanh(clamp(u, -15.0, 15.0))); }
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32, @builtin(subgroup_id) s: u32, @builtin(subgroup_invocation_id) lane: u32) {
  let m0 = g.y * BM; let n0 = g.x * BN;
  let sm = (s / 2u) * $MTu * T; let sn = (s % 2u) * $NTu * T;
  $DECL
  let tr = t / KV; let tc = t % KV; // a thread's row step is THREADS / KV
  var pk = 0u;
  $LOAD
  $STORE0
  workgroupBarrier();
  var cur = 0u;
  for (var k0 = 0u; k0 < p.k; k0 += K) {
    pk = k0 + K; let more = pk < p.k;
    if (more) { $LOAD }
    for (var kk = 0u; kk < KV; kk += T / 4u) {
      let xo = cur * XB + sm * RS + kk; let wo = cur * WB + sn * RS + kk;
      $MUL
    }
    cur = 1u - cur;
    if (more) { $STORE }
    workgroupBarrier();
  }
  let yo = s * T * T; let st = T;
  $OUT
}
