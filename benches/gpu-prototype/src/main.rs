use std::{borrow::Cow, collections::HashMap, time::Instant};
use wgpu::util::DeviceExt;
mod bench;
mod refs;
use half::{bf16, f16};

pub struct Gpu {
    dev: wgpu::Device,
    queue: wgpu::Queue,
    pipes: HashMap<String, wgpu::ComputePipeline>,
    unchecked: bool,
    loud: bool,
}
impl Gpu {
    fn buf(&self, data: &[u8]) -> wgpu::Buffer {
        self.dev.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents: data,
            usage: wgpu::BufferUsages::STORAGE,
        })
    }
    fn out(&self, bytes: u64) -> wgpu::Buffer {
        self.dev.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    }
    fn pipe(&mut self, src: &str) -> Result<wgpu::ComputePipeline, String> {
        if let Some(p) = self.pipes.get(src) {
            return Ok(p.clone());
        }
        let scope = self.dev.push_error_scope(wgpu::ErrorFilter::Validation);
        let t = Instant::now();
        let desc = wgpu::ShaderModuleDescriptor { label: None, source: wgpu::ShaderSource::Wgsl(Cow::Borrowed(src)) };
        let module = if self.unchecked {
            unsafe { self.dev.create_shader_module_trusted(desc, wgpu::ShaderRuntimeChecks::unchecked()) }
        } else {
            self.dev.create_shader_module(desc)
        };
        let t1 = t.elapsed();
        let p = self.dev.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        if let Some(e) = pollster::block_on(scope.pop()) {
            return Err(e.to_string());
        }
        if self.loud {
            println!(
                "    [pipeline: wgsl {:.1} ms, driver {:.1} ms]",
                t1.as_secs_f64() * 1e3,
                (t.elapsed() - t1).as_secs_f64() * 1e3
            );
        }
        self.pipes.insert(src.into(), p.clone());
        Ok(p)
    }
    /// Binds buffers to the bindings 0, 1, … of a kernel.
    fn bind(&self, pipe: &wgpu::ComputePipeline, bufs: &[&wgpu::Buffer]) -> wgpu::BindGroup {
        let entries: Vec<_> = bufs
            .iter()
            .enumerate()
            .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.as_entire_binding() })
            .collect();
        self.dev.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipe.get_bind_group_layout(0),
            entries: &entries,
        })
    }
    fn run(&mut self, src: &str, bufs: &[&wgpu::Buffer], params: &[u8], grid: (u32, u32)) -> Result<f64, String> {
        let p = self.pipe(src)?;
        let group = self.bind(&p, bufs);
        let mut secs = [0.0; 2];
        for (i, grid) in [(1, 1), grid].into_iter().enumerate() {
            let t = Instant::now();
            let mut enc = self.dev.create_command_encoder(&Default::default());
            {
                let mut pass = enc.begin_compute_pass(&Default::default());
                pass.set_pipeline(&p);
                pass.set_bind_group(0, &group, &[]);
                pass.set_immediates(0, params);
                pass.dispatch_workgroups(grid.0, grid.1, 1);
            }
            self.queue.submit([enc.finish()]);
            self.dev.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
            secs[i] = t.elapsed().as_secs_f64();
        }
        if self.loud {
            println!("    [first dispatch of one workgroup {:.0} ms]", secs[0] * 1e3);
        }
        Ok(secs[1])
    }
    fn read(&self, b: &wgpu::Buffer) -> Vec<u8> {
        let s = self.dev.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: b.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut enc = self.dev.create_command_encoder(&Default::default());
        enc.copy_buffer_to_buffer(b, 0, &s, 0, b.size());
        self.queue.submit([enc.finish()]);
        s.map_async(wgpu::MapMode::Read, .., |r| r.unwrap());
        self.dev.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        s.get_mapped_range(..).unwrap().to_vec()
    }
}
fn u(v: &[u32]) -> Vec<u8> {
    bytemuck::cast_slice(v).to_vec()
}
fn by(v: &[f32]) -> &[u8] {
    bytemuck::cast_slice(v)
}

const LIN: &str = include_str!("linear.wgsl");
fn linear_src(wt: &str, loader: &str, pre: &str) -> String {
    format!("{pre}{}", LIN.replace("$WT", wt).replace("$LOADER", loader))
}
const L_F32: &str = "fn w4(r: u32, k: u32) -> vec4<f32> { return w[(r * p.k + k) / 4u]; }";
const L_F16N: &str = "fn w4(r: u32, k: u32) -> vec4<f32> { return vec4<f32>(w[(r * p.k + k) / 4u]); }";
const L_F16P: &str = "fn w4(r: u32, k: u32) -> vec4<f32> { let a = w[(r * p.k + k) / 4u]; return vec4(unpack2x16float(a.x), unpack2x16float(a.y)); }";
const L_BF16: &str = "fn w4(r: u32, k: u32) -> vec4<f32> { let a = w[(r * p.k + k) / 4u]; return bitcast<vec4<f32>>(vec4(a.x << 16u, a.x & 0xffff0000u, a.y << 16u, a.y & 0xffff0000u)); }";
// Without subnormal floats on the way: a driver may flush them.
const L_FP8: &str = "fn w4(r: u32, k: u32) -> vec4<f32> { let a = (vec4<u32>(w[(r * p.k + k) / 4u]) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu); let m = a & vec4(7u); let e = (a >> vec4(3u)) & vec4(15u);
  let v = select(bitcast<vec4<f32>>(((e + vec4(120u)) << vec4(23u)) | (m << vec4(20u))), vec4<f32>(m) * (1.0 / 512.0), e == vec4(0u));
  return select(v, -v, (a & vec4(0x80u)) != vec4(0u)); }";
// Q8_0 repacked at upload: N·K/4 words of quants, then N·K/32 f16 scales.
const L_Q8: &str = "fn w4(r: u32, k: u32) -> vec4<f32> { let i = r * p.k + k; let s = p.n * p.k / 4u; let d = unpack2x16float(w[s + i / 64u])[(i / 32u) % 2u];
  return vec4<f32>(unpack4xI8(w[i / 4u])) * d; }";
// Q4_K as in the file: 144 bytes = 36 words per 256 weights: d, dmin, 12 bytes of 6-bit scales and mins, 128 bytes of nibbles.
const L_Q4K: &str = "fn b6(o: u32, i: u32) -> u32 { return (w[o + 1u + i / 4u] >> ((i % 4u) * 8u)) & 0xffu; }
fn w4(r: u32, k: u32) -> vec4<f32> { let i = r * p.k + k; let o = (i / 256u) * 36u; let e = i % 256u; let j = e / 32u;
  var sc: u32; var mn: u32;
  if (j < 4u) { sc = b6(o, j) & 63u; mn = b6(o, j + 4u) & 63u; }
  else { sc = (b6(o, j + 4u) & 15u) | ((b6(o, j - 4u) >> 6u) << 4u); mn = (b6(o, j + 4u) >> 4u) | ((b6(o, j) >> 6u) << 4u); }
  let dm = unpack2x16float(w[o]); let q = w[o + 4u + (e / 64u) * 8u + (e % 32u) / 4u] >> ((j % 2u) * 4u);
  let n = (vec4<u32>(q) >> vec4(0u, 8u, 16u, 24u)) & vec4(15u);
  return vec4<f32>(n) * (dm.x * f32(sc)) - dm.y * f32(mn); }";

fn err(name: &str, got: &[f32], want: &[f32], secs: f64, flop: f64) {
    let (mut mx, mut se, mut sw) = (0f32, 0f64, 0f64);
    for (a, b) in got.iter().zip(want) {
        mx = mx.max((a - b).abs());
        se += ((a - b) as f64).powi(2);
        sw += (*b as f64).powi(2);
    }
    let rel = (se / sw).sqrt();
    let bad = !(rel < if name.contains("f16->f16") { 1e-2 } else { 1e-3 }) || got.iter().any(|v| !v.is_finite());
    let _ = (mx, secs, flop);
    println!("{}{name}: {rel:.1e}", if bad { "BAD " } else { "" });
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |s: &str| args.iter().any(|a| a == s);
    let inst = {
        let mut d = wgpu::InstanceDescriptor::new_without_display_handle();
        d.backends = wgpu::Backends::VULKAN;
        wgpu::Instance::new(d)
    };
    if has("info") {
        for a in pollster::block_on(inst.enumerate_adapters(wgpu::Backends::all())) {
            let i = a.get_info();
            println!("adapter: {} {:?} {:?} {} {}", i.name, i.backend, i.device_type, i.driver, i.driver_info);
        }
    }
    let adapter = pollster::block_on(inst.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let f = adapter.features();
    let l = adapter.limits();
    if has("info") {
        println!(
            "f16 {} subgroup {} immediates {} passthrough {} coop {} timestamp {} pipeline-cache {}",
            f.contains(wgpu::Features::SHADER_F16),
            f.contains(wgpu::Features::SUBGROUP),
            f.contains(wgpu::Features::IMMEDIATES),
            f.contains(wgpu::Features::PASSTHROUGH_SHADERS),
            f.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
            f.contains(wgpu::Features::TIMESTAMP_QUERY),
            f.contains(wgpu::Features::PIPELINE_CACHE)
        );
        println!(
            "max buffer {} MiB, max storage binding {} MiB, shared {} KiB, invocations {}",
            l.max_buffer_size >> 20,
            l.max_storage_buffer_binding_size >> 20,
            l.max_compute_workgroup_storage_size >> 10,
            l.max_compute_invocations_per_workgroup
        );
        for p in adapter.cooperative_matrix_properties() {
            println!("coop {}x{}x{} {:?}->{:?}", p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type)
        }
        let i = adapter.get_info();
        println!("subgroup {}..{}; chosen {} {}", i.subgroup_min_size, i.subgroup_max_size, i.name, i.driver_info);
        return;
    }
    let want = f
        & (wgpu::Features::SHADER_F16
            | wgpu::Features::SUBGROUP
            | wgpu::Features::IMMEDIATES
            | wgpu::Features::PASSTHROUGH_SHADERS
            | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
            | wgpu::Features::TIMESTAMP_QUERY);
    let (dev, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        label: None,
        required_features: want,
        required_limits: l.clone(),
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        memory_hints: wgpu::MemoryHints::Performance,
        trace: wgpu::Trace::Off,
    }))
    .unwrap();
    let mut g = Gpu { dev, queue, pipes: HashMap::new(), unchecked: has("unchecked"), loud: has("loud") };
    if let Some(i) = args.iter().position(|a| a == "bench") {
        return bench::bench(&mut g, &adapter, &args[i + 1..]);
    }

    // linear
    let ev = |n: &str, d: usize| std::env::var(n).ok().and_then(|v| v.parse().ok()).unwrap_or(d);
    let (m, k, n) = (ev("M", 1357), ev("K", 1536), ev("N", 6144));
    let only = std::env::var("ONLY").unwrap_or_default();
    let x = refs::rand(m * k, 1, 1.0);
    let w = refs::rand(n * k, 2, 0.05);
    let b = refs::rand(n, 3, 0.1);
    let flop = 2.0 * (m * k * n) as f64;
    let pr = u(&[m as u32, n as u32, k as u32, 1]);
    let grid = (n.div_ceil(64) as u32, m.div_ceil(64) as u32);
    let (bx, bb, bo) = (g.buf(by(&x)), g.buf(by(&b)), g.out((m * n * 4) as u64));
    let w16: Vec<f16> = w.iter().map(|v| f16::from_f32(*v)).collect();
    let wb: Vec<bf16> = w.iter().map(|v| bf16::from_f32(*v)).collect();
    let (q8, q8w) = refs::q8(&w);
    let (q4, q4w) = refs::q4k(&w);
    let (f8, f8w) = refs::fp8(&w);
    let t = Instant::now();
    let r32 = refs::linear(&x, &w, &b, m, k, n);
    let tc = t.elapsed().as_secs_f64();
    println!("cpu gemm {:.1} ms {:.1} GFLOP/s", tc * 1e3, flop / tc / 1e9);
    let cases: Vec<(&str, String, Vec<u8>, Vec<f32>)> = vec![
        ("linear+gelu f32", linear_src("vec4<f32>", L_F32, ""), by(&w).to_vec(), w.clone()),
        (
            "linear f16 weights (enable f16)",
            linear_src("vec4<f16>", L_F16N, "enable f16;\n"),
            bytemuck::cast_slice(&w16.iter().map(|v| v.to_bits()).collect::<Vec<u16>>()).to_vec(),
            w16.iter().map(|v| v.to_f32()).collect(),
        ),
        (
            "linear f16 weights (unpack2x16float)",
            linear_src("vec2<u32>", L_F16P, ""),
            bytemuck::cast_slice(&w16.iter().map(|v| v.to_bits()).collect::<Vec<u16>>()).to_vec(),
            w16.iter().map(|v| v.to_f32()).collect(),
        ),
        (
            "linear bf16 weights",
            linear_src("vec2<u32>", L_BF16, ""),
            bytemuck::cast_slice(&wb.iter().map(|v| v.to_bits()).collect::<Vec<u16>>()).to_vec(),
            wb.iter().map(|v| v.to_f32()).collect(),
        ),
        ("linear fp8 e4m3 weights", linear_src("u32", L_FP8, ""), f8, f8w),
        ("linear Q8_0 weights", linear_src("u32", L_Q8, ""), q8, q8w),
        ("linear Q4_K weights", linear_src("u32", L_Q4K, ""), q4, q4w),
    ];
    for (name, src, bytes, deq) in cases.iter().filter(|c| c.0.contains(&only)) {
        let want = if *name == "linear+gelu f32" { r32.clone() } else { refs::linear(&x, deq, &b, m, k, n) };
        let bw = g.buf(bytes);
        match g.run(src, &[&bx, &bw, &bb, &bo], &pr, grid) {
            Ok(s) => err(name, bytemuck::cast_slice(&g.read(&bo)), &want, s, flop),
            Err(e) => println!("{name}: {}", e.lines().take(6).collect::<Vec<_>>().join(" | ")),
        }
    }
    // the whole layer on cooperative matrices, all weight formats
    for c in adapter.cooperative_matrix_properties().into_iter().filter(|c| {
        c.m_size == c.n_size
            && c.n_size == c.k_size
            && c.cr_type == wgpu::CooperativeScalarType::F32
            && c.ab_type == wgpu::CooperativeScalarType::F16
    }) {
        let sg = adapter.get_info().subgroup_min_size;
        let tile = 4 * c.m_size;
        for (wt, loader, ci) in [
            ("vec4<f32>", L_F32, 0usize),
            ("vec2<u32>", L_F16P, 3),
            ("vec2<u32>", L_BF16, 4),
            ("u32", L_FP8, 5),
            ("u32", L_Q8, 6),
            ("u32", L_Q4K, 7),
        ] {
            let src = include_str!("coop2.wgsl")
                .replace("$Tx$T", &format!("{0}x{0}", c.m_size))
                .replace("$Tu", &format!("{}u", c.m_size))
                .replace("$SGu", &format!("{sg}u"))
                .replace("$WT", wt)
                .replace("$LOADER", loader);
            let bw = g.buf(&cases[ci].2);
            let want = refs::linear(&x, &cases[ci].3, &b, m, k, n);
            let name = format!("coop2 {}³ sg{sg} {}", c.m_size, cases[ci].0);
            match g.run(
                &src,
                &[&bx, &bw, &bb, &bo],
                &pr,
                (n.div_ceil(tile as usize) as u32, m.div_ceil(tile as usize) as u32),
            ) {
                Ok(s) => err(&name, bytemuck::cast_slice(&g.read(&bo)), &want, s, flop),
                Err(e) => println!("{name}: {}", e.lines().take(8).collect::<Vec<_>>().join(" | ")),
            }
        }
    }
    for c in bench::f16_matrices(&adapter) {
        let sg = adapter.get_info().subgroup_min_size;
        for (mt, nt, xt) in [(2, 4, "vec4<f32>"), (2, 4, "vec4<f16>"), (1, 4, "vec4<f32>"), (1, 2, "vec4<f32>")] {
            for f in 0..6 {
                let fm = &bench::FORMATS[f];
                let src = bench::coop3(c, sg, mt, nt, xt, fm.1, fm.2);
                let ci = [0usize, 2, 4, 5, 6, 7][f];
                let bw = g.buf(&cases[ci].2);
                let x16: Vec<u16> = x.iter().map(|v| f16::from_f32(*v).to_bits()).collect();
                let bx = if xt == "vec4<f16>" { g.buf(bytemuck::cast_slice(&x16)) } else { g.buf(by(&x)) };
                let want = refs::linear(&x, &cases[ci].3, &b, m, k, n);
                let name = format!("coop3 {}x{} {xt} {}", 4 * mt * c, 2 * nt * c, fm.0);
                match g.run(
                    &src,
                    &[&bx, &bw, &bb, &bo],
                    &pr,
                    (n.div_ceil((2 * nt * c) as usize) as u32, m.div_ceil((4 * mt * c) as usize) as u32),
                ) {
                    Ok(s) => err(&name, bytemuck::cast_slice(&g.read(&bo)), &want, s, flop),
                    Err(e) => println!("BAD {name}: {}", e.lines().take(12).collect::<Vec<_>>().join(" | ")),
                }
            }
        }
    }
    // cooperative matrices (no bias or activation)
    if f.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        let mp = m.next_multiple_of(16);
        let mut xp = x.clone();
        xp.resize(mp * k, 0.0);
        for c in
            adapter.cooperative_matrix_properties().into_iter().filter(|c| c.m_size == c.n_size && c.n_size == c.k_size)
        {
            let ty = |t| match t {
                wgpu::CooperativeScalarType::F16 => "f16",
                wgpu::CooperativeScalarType::F32 => "f32",
                _ => "?",
            };
            let (a, cr) = (ty(c.ab_type), ty(c.cr_type));
            if a == "?" || cr == "?" {
                continue;
            }
            let sg = adapter.get_info().subgroup_min_size;
            let src = include_str!("coop.wgsl")
                .replace("$Tx$T", &format!("{0}x{0}", c.m_size))
                .replace("$Tu", &format!("{}u", c.m_size))
                .replace("$SG", &sg.to_string())
                .replace("$AT", a)
                .replace("$CT", cr);
            let x16: Vec<f16> = xp.iter().map(|v| f16::from_f32(*v)).collect();
            let (xb, wb) = if a == "f16" {
                (
                    g.buf(bytemuck::cast_slice(&x16.iter().map(|v| v.to_bits()).collect::<Vec<u16>>())),
                    g.buf(bytemuck::cast_slice(&w16.iter().map(|v| v.to_bits()).collect::<Vec<u16>>())),
                )
            } else {
                (g.buf(by(&xp)), g.buf(by(&w)))
            };
            let zero = vec![0f32; n];
            let want = if a == "f16" {
                refs::linear_raw(
                    &x16.iter().map(|v| v.to_f32()).collect::<Vec<_>>(),
                    &w16.iter().map(|v| v.to_f32()).collect::<Vec<_>>(),
                    &zero,
                    m,
                    k,
                    n,
                )
            } else {
                refs::linear_raw(&x, &w, &zero, m, k, n)
            };
            let ob = g.out((mp * n * if cr == "f16" { 2 } else { 4 }) as u64);
            let name = format!("coop {}³ {a}->{cr} sg{sg}", c.m_size);
            let gr = (n as u32 / (4 * c.m_size), mp as u32 / c.m_size);
            match g.run(&src, &[&xb, &wb, &ob], &pr, gr) {
                Ok(s) => {
                    let raw = g.read(&ob);
                    let got: Vec<f32> = if cr == "f16" {
                        raw.chunks(2).map(|c| f16::from_le_bytes([c[0], c[1]]).to_f32()).collect()
                    } else {
                        bytemuck::cast_slice(&raw).to_vec()
                    };
                    err(&name, &got[..m * n], &want, s, flop)
                }
                Err(e) => println!("{name}: {}", e.lines().take(8).collect::<Vec<_>>().join(" | ")),
            }
        }
    }
    // norm_modulate
    let (sh, sc) = (refs::rand(k, 5, 0.5), refs::rand(k, 6, 0.5));
    let (bs, bc, bo) = (g.buf(by(&sh)), g.buf(by(&sc)), g.out((m * k * 4) as u64));
    let mut pr = u(&[m as u32, k as u32]);
    pr.extend(1e-6f32.to_le_bytes());
    pr.extend([0; 4]);
    {
        match g.run(include_str!("norm.wgsl"), &[&bx, &bs, &bc, &bo], &pr, (m as u32, 1)) {
            Ok(s) => err(
                "norm_modulate",
                bytemuck::cast_slice(&g.read(&bo)),
                &refs::norm(&x, &sh, &sc, k),
                s,
                8.0 * (m * k) as f64,
            ),
            Err(e) => println!("norm: {e}"),
        }
    }
    // attention
    let (heads, tk) = (ev("H", 24), ev("T", 1357));
    let wd = heads * 64;
    let (q, kk, v) = (refs::rand(tk * wd, 7, 1.7), refs::rand(tk * wd, 8, 1.7), refs::rand(tk * wd, 9, 1.0));
    let (bq, bk, bv) = (g.buf(by(&q)), g.buf(by(&kk)), g.buf(by(&v)));
    let dummy = g.buf(&[0; 16]);
    for (mode, t) in [(0u32, tk), (1, 77.min(tk)), (2, 64.min(tk))] {
        let bias = refs::rand(heads * t * t, 10, 1.0);
        let bbias = if mode == 2 { g.buf(by(&bias)) } else { dummy.clone() };
        let mut pr = u(&[t as u32, t as u32, wd as u32, mode]);
        pr.extend(0.125f32.to_le_bytes());
        pr.extend([0; 12]);
        let bo = g.out((t * wd * 4) as u64);
        match g.run(
            include_str!("attention.wgsl"),
            &[&bq, &bk, &bv, &bbias, &bo],
            &pr,
            (t.div_ceil(64) as u32, heads as u32),
        ) {
            Ok(s) => err(
                &format!("attention mode {mode}, {t} tokens"),
                bytemuck::cast_slice(&g.read(&bo)),
                &refs::attention(&q, &kk, &v, t, wd, heads, mode, &bias),
                s,
                4.0 * (t * t * wd) as f64,
            ),
            Err(e) => println!("attention: {e}"),
        }
    }
    // attention on cooperative matrices
    for c in adapter.cooperative_matrix_properties().into_iter().filter(|c| {
        c.m_size == c.n_size
            && c.n_size == c.k_size
            && c.cr_type == wgpu::CooperativeScalarType::F32
            && c.ab_type == wgpu::CooperativeScalarType::F16
    }) {
        let sg = adapter.get_info().subgroup_min_size;
        let bt = 4 * c.m_size as usize;
        let rows = tk.next_multiple_of(bt);
        let half = |v: &[f32]| {
            let mut h: Vec<u16> = v.iter().map(|v| f16::from_f32(*v).to_bits()).collect();
            h.resize(rows * wd, 0);
            g.buf(bytemuck::cast_slice(&h))
        };
        let (a, b, d) = (half(&q), half(&kk), half(&v));
        let bo = g.out((rows * wd * 4) as u64);
        let r16 = |v: &[f32]| v.iter().map(|v| f16::from_f32(*v).to_f32()).collect::<Vec<_>>();
        let mut pr = u(&[tk as u32, tk as u32, wd as u32]);
        pr.extend(0.125f32.to_le_bytes());
        for (name, source) in bench::ATTN {
            let src = bench::attn_coop(source, c.m_size, sg);
            match g.run(&src, &[&a, &b, &d, &bo], &pr, ((rows / bt) as u32, heads as u32)) {
                Ok(s) => {
                    let raw = g.read(&bo);
                    let got: &[f32] = bytemuck::cast_slice(&raw);
                    err(
                        &format!("attention {name} f16, two passes"),
                        &got[..tk * wd],
                        &refs::attention(&r16(&q), &r16(&kk), &r16(&v), tk, wd, heads, 0, &[]),
                        s,
                        6.0 * (tk * tk * wd) as f64,
                    )
                }
                Err(e) => println!("BAD attn {name}: {}", e.lines().take(12).collect::<Vec<_>>().join(" | ")),
            }
        }
    }
    // conv
    let (h, wi, ci, co) = (ev("S", 64), ev("S", 64), 128usize, 128usize);
    let (cx, cw, cb) = (refs::rand(h * wi * ci, 11, 1.0), refs::rand(co * 9 * ci, 12, 0.05), refs::rand(co, 13, 0.1));
    let (bx, bw, bb, bo) = (g.buf(by(&cx)), g.buf(by(&cw)), g.buf(by(&cb)), g.out((h * wi * co * 4) as u64));
    let pr = u(&[h as u32, wi as u32, ci as u32, co as u32]);
    {
        match g.run(
            include_str!("conv.wgsl"),
            &[&bx, &bw, &bb, &bo],
            &pr,
            (co.div_ceil(64) as u32, (h * wi).div_ceil(64) as u32),
        ) {
            Ok(s) => err(
                "conv 3x3 128ch 64x64",
                bytemuck::cast_slice(&g.read(&bo)),
                &refs::conv(&cx, &cw, &cb, h, wi, ci, co),
                s,
                (2 * h * wi * ci * co * 9) as f64,
            ),
            Err(e) => println!("conv: {e}"),
        }
    }
    // dispatch overhead: 300 small norms in one command buffer
    let p = g.pipe(include_str!("norm.wgsl")).unwrap();
    let small = g.buf(by(&x[..k]));
    let so = g.out((k * 4) as u64);
    let mut pr = u(&[1, k as u32]);
    pr.extend(1e-6f32.to_le_bytes());
    pr.extend([0; 4]);
    let t = Instant::now();
    let mut enc = g.dev.create_command_encoder(&Default::default());
    for _ in 0..300 {
        let gr = g.bind(&p, &[&small, &bs, &bc, &so]);
        let mut pass = enc.begin_compute_pass(&Default::default());
        pass.set_pipeline(&p);
        pass.set_bind_group(0, &gr, &[]);
        pass.set_immediates(0, &pr);
        pass.dispatch_workgroups(1, 1, 1);
    }
    let enc = enc.finish();
    let rec = t.elapsed();
    g.queue.submit([enc]);
    g.dev.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    if has("loud") {
        println!(
            "300 dispatches: recorded {:.2} ms, done {:.2} ms",
            rec.as_secs_f64() * 1e3,
            t.elapsed().as_secs_f64() * 1e3
        );
    }
}
