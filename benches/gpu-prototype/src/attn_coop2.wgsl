enable f16;
enable wgpu_cooperative_matrix;
// Scores and probabilities lie column by column in workgroup memory (no bank conflicts), all threads share the statistics.
// Attention on cooperative matrices in two passes over the keys (statistics, then output), head width 64. f16 in, f32 out.
// 4 subgroups, each T query rows. Buffers are padded to multiples of 4·T rows.
struct P { queries: u32, keys: u32, width: u32, scale: f32 }
var<immediate> p: P;
const T = $Tu; const BT = 4u * T; const THREADS = 4u * $SGu;
@group(0) @binding(0) var<storage, read> q: array<f16>;
@group(0) @binding(1) var<storage, read> k: array<f16>;
@group(0) @binding(2) var<storage, read> v: array<f16>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<workgroup> ss: array<f32, BT * BT>;
var<workgroup> ps: array<f16, BT * BT>;
const PARTS = THREADS / BT; const COLS = BT / PARTS;
var<workgroup> mx: array<f32, THREADS>;
var<workgroup> inv: array<f32, THREADS>;
fn scores(s: u32, q0: u32, k0: u32, h: u32) {
  let w = p.width; let st = BT;
  for (var j = 0u; j < 4u; j++) {
    var c = coop_mat$Tx$T<f32, C>();
    for (var d = 0u; d < 64u; d += T) {
      let ia = (q0 + s * T) * w + h + d; let ib = (k0 + j * T) * w + h + d;
      let a = coopLoadT<coop_mat$Tx$T<f16, A>>(&q[ia], w);
      let b = coopLoad<coop_mat$Tx$T<f16, B>>(&k[ib], w);
      c = coopMultiplyAdd(a, b, c);
    }
    let o = j * T * BT + s * T; let r = c;
    coopStore(r, &ss[o], st);
  }
}
@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) g: vec3<u32>, @builtin(local_invocation_index) t: u32, @builtin(subgroup_id) s: u32) {
  let q0 = g.x * BT; let h = g.y * 64u; let w = p.width;
  let row = t % BT; let part = t / BT; // a thread's row is the same in every step
  var m = -1e30; var l = 0.0;
  for (var k0 = 0u; k0 < p.keys; k0 += BT) {
    scores(s, q0, k0, h); workgroupBarrier();
    { let n = min(BT, p.keys - k0); let j0 = min(part * COLS, n); let j1 = min(j0 + COLS, n); var m2 = m;
      for (var j = j0; j < j1; j++) { m2 = max(m2, ss[j * BT + row]); }
      l *= exp((m - m2) * p.scale); for (var j = j0; j < j1; j++) { l += exp((ss[j * BT + row] - m2) * p.scale); } m = m2; }
    workgroupBarrier();
  }
  mx[t] = m; inv[t] = l; workgroupBarrier();
  var mm = -1e30; for (var i = 0u; i < PARTS; i++) { mm = max(mm, mx[i * BT + row]); }
  var ll = 0.0; for (var i = 0u; i < PARTS; i++) { ll += inv[i * BT + row] * exp((mx[i * BT + row] - mm) * p.scale); }
  let il = 1.0 / ll;
  workgroupBarrier();
  $DECL
  for (var k0 = 0u; k0 < p.keys; k0 += BT) {
    scores(s, q0, k0, h); workgroupBarrier();
for (var i = t; i < BT * BT; i += THREADS) { var e = 0.0; if (k0 + i / BT < p.keys) { e = exp((ss[i] - mm) * p.scale) * il; } ps[i] = f16(e); }
    workgroupBarrier();
    for (var j = 0u; j < 4u; j++) {
      let ip = j * T * BT + s * T; let iv = (k0 + j * T) * w + h; let st = BT;
      let a = coopLoad<coop_mat$Tx$T<f16, A>>(&ps[ip], st);
      $MULS
    }
    workgroupBarrier();
  }
  let o = (q0 + s * T) * w + h;
  $STORES
}
