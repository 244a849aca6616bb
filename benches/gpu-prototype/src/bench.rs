use crate::*;
pub const FORMATS: [(&str, &str, &str); 6] = [
    ("f32", "vec4<f32>", L_F32),
    ("f16", "vec4<f16>", L_F16N),
    ("bf16", "vec2<u32>", L_BF16),
    ("fp8", "u32", L_FP8),
    ("q8_0", "u32", L_Q8),
    ("q4_k", "u32", L_Q4K),
];
pub const ATTN: [(&str, &str); 2] =
    [("coop", include_str!("attn_coop.wgsl")), ("coop2", include_str!("attn_coop2.wgsl"))];
pub fn f16_matrices(a: &wgpu::Adapter) -> Vec<u32> {
    a.cooperative_matrix_properties()
        .into_iter()
        .filter(|c| {
            c.m_size == c.n_size
                && c.n_size == c.k_size
                && c.cr_type == wgpu::CooperativeScalarType::F32
                && c.ab_type == wgpu::CooperativeScalarType::F16
        })
        .map(|c| c.m_size)
        .collect()
}
pub fn coop2(t: u32, sg: u32, wt: &str, loader: &str) -> String {
    include_str!("coop2.wgsl")
        .replace("$Tx$T", &format!("{t}x{t}"))
        .replace("$Tu", &format!("{t}u"))
        .replace("$SGu", &format!("{sg}u"))
        .replace("$WT", wt)
        .replace("$LOADER", loader)
}
pub fn coop3(t: u32, sg: u32, mt: u32, nt: u32, xt: &str, wt: &str, loader: &str) -> String {
    let kv = t / 2;
    let (threads, bm, bn) = (8 * sg, 4 * mt * t, 2 * nt * t);
    let step = threads / kv; // rows a pass
    let (nx, nw) = (bm.div_ceil(step), bn.div_ceil(step));
    assert!(bm % step == 0 && bn % step == 0, "{bm} {bn} {step}");
    let mm = format!("coop_mat{t}x{t}");
    let mut decl = String::new();
    for i in 0..mt {
        for j in 0..nt {
            decl += &format!("var c{i}_{j} = {mm}<f32, C>(); ");
        }
    }
    for i in 0..nx {
        decl += &format!("var a{i} = vec4<f16>(); ");
    }
    for i in 0..nw {
        decl += &format!("var d{i} = vec4<f16>(); ");
    }
    let load: String = (0..nx)
        .map(|i| format!("a{i} = lx(m0 + tr + {}u, pk + tc * 4u); ", i * step))
        .chain((0..nw).map(|i| format!("d{i} = lw(n0 + tr + {}u, pk + tc * 4u); ", i * step)))
        .collect();
    let store = |buf: &str| -> String {
        (0..nx)
            .map(|i| format!("xs[{buf} * XB + (tr + {}u) * RS + tc] = a{i}; ", i * step))
            .chain((0..nw).map(|i| format!("ws[{buf} * WB + (tr + {}u) * RS + tc] = d{i}; ", i * step)))
            .collect()
    };
    let mut mul = String::new();
    for i in 0..mt {
        mul += &format!("let ia{i} = xo + {}u * RS; let ma{i} = coopLoadT<{mm}<f16, A>>(&xs[ia{i}], RS);\n", i * t);
    }
    for j in 0..nt {
        mul += &format!("let ib{j} = wo + {}u * RS; let mb{j} = coopLoad<{mm}<f16, B>>(&ws[ib{j}], RS);\n", j * t);
        for i in 0..mt {
            mul += &format!("c{i}_{j} = coopMultiplyAdd(ma{i}, mb{j}, c{i}_{j});\n");
        }
    }
    let mut out = String::new();
    for i in 0..mt {
        for j in 0..nt {
            out += &format!("{{ let r = c{i}_{j}; coopStoreT(r, &ys[yo], st); workgroupBarrier();
      for (var i = lane; i < T * T; i += SG) {{ let m = m0 + sm + {}u + i / T; let n = n0 + sn + {}u + i % T;
        if (m < p.m && n < p.n) {{ var v = ys[yo + i] + b[n]; if (p.act == 1u) {{ v = gelu(v); }} y[m * p.n + n] = v; }} }} workgroupBarrier(); }}\n", i * t, j * t);
        }
    }
    include_str!("coop3.wgsl")
        .replace("$Tu", &format!("{t}u"))
        .replace("$SGu", &format!("{sg}u"))
        .replace("$MTu", &format!("{mt}u"))
        .replace("$NTu", &format!("{nt}u"))
        .replace("$XT", xt)
        .replace("$WT", wt)
        .replace("$LOADER", loader)
        .replace("$DECL", &decl)
        .replace("$LOAD", &load)
        .replace("$STORE0", &store("0u"))
        .replace("$STORE", &store("cur"))
        .replace("$MUL", &mul)
        .replace("$OUT", &out)
}
pub fn attn_coop(source: &str, t: u32, sg: u32) -> String {
    let n = 64 / t;
    let mm = format!("coop_mat{t}x{t}");
    let decl: String = (0..n).map(|i| format!("var o{i} = {mm}<f32, C>(); ")).collect();
    let muls: String = (0..n)
        .map(|i| {
            format!(
                "let i{i} = iv + {}u; let b{i} = coopLoadT<{mm}<f16, B>>(&v[i{i}], w); o{i} = coopMultiplyAdd(a, b{i}, o{i});\n",
                i * t
            )
        })
        .collect();
    let stores: String = (0..n)
        .map(|i| format!("let j{i} = o + {}u; let r{i} = o{i}; coopStoreT(r{i}, &y[j{i}], w);\n", i * t))
        .collect();
    source
        .replace("$Tx$T", &format!("{t}x{t}"))
        .replace("$Tu", &format!("{t}u"))
        .replace("$SGu", &format!("{sg}u"))
        .replace("$DECL", &decl)
        .replace("$MULS", &muls)
        .replace("$STORES", &stores)
}
impl Gpu {
    /// The median seconds of a dispatch among `n`, each its own pass between two timestamps, in one submission.
    fn time(&mut self, src: &str, bufs: &[&wgpu::Buffer], params: &[u8], grid: (u32, u32)) -> Result<f64, String> {
        let p = self.pipe(src)?;
        let group = self.bind(&p, bufs);
        let stamps = self.dev.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let set = stamps.then(|| {
            self.dev.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 64,
            })
        });
        let submit = |n: u32| -> Result<(f64, f64), String> {
            let t = Instant::now();
            let mut enc = self.dev.create_command_encoder(&Default::default());
            for i in 0..n {
                let tw = set.as_ref().map(|s| wgpu::ComputePassTimestampWrites {
                    query_set: s,
                    beginning_of_pass_write_index: Some(2 * i),
                    end_of_pass_write_index: Some(2 * i + 1),
                });
                let mut pass =
                    enc.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: tw });
                pass.set_pipeline(&p);
                pass.set_bind_group(0, &group, &[]);
                pass.set_immediates(0, params);
                pass.dispatch_workgroups(grid.0, grid.1, 1);
            }
            let qb = self.dev.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 512,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            if let Some(s) = &set {
                enc.resolve_query_set(s, 0..2 * n, &qb, 0);
            }
            self.queue.submit([enc.finish()]);
            self.dev.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| e.to_string())?;
            let wall = t.elapsed().as_secs_f64() / n as f64;
            if !stamps {
                return Ok((wall, wall));
            }
            let raw = self.read(&qb);
            let v: &[u64] = bytemuck::cast_slice(&raw);
            let ns = self.queue.get_timestamp_period() as f64;
            let mut d: Vec<f64> =
                (0..n as usize).map(|i| v[2 * i + 1].saturating_sub(v[2 * i]) as f64 * ns * 1e-9).collect();
            d.sort_by(f64::total_cmp);
            Ok((d[d.len() / 2], wall))
        };
        submit(1)?;
        let (_, w) = submit(1)?; // warm-up
        if w > 2.0 {
            return Ok(w);
        }
        submit(3)?;
        let (median, wall) = submit(if w > 0.2 { 3 } else { 20 })?;
        if self.loud {
            println!("    median {:.4} ms, wall {:.4} ms a dispatch", median * 1e3, wall * 1e3)
        }
        Ok(median)
    }
}
fn cell(r: Result<f64, String>, flop: f64) -> String {
    match r {
        Ok(s) => format!("{:>8.1}", flop / s / 1e12),
        Err(e) => {
            println!("BAD {}", e.lines().take(8).collect::<Vec<_>>().join(" | "));
            format!("{:>8}", "error")
        }
    }
}

/// Words: what (tiled, coop2, coop3, attn, conv), `unchecked` anywhere, `tiny` for a test on a CPU.
pub fn bench(g: &mut Gpu, adapter: &wgpu::Adapter, args: &[String]) {
    let tiny = args.iter().any(|a| a == "tiny");
    let what = args[0].as_str();
    let only = std::env::var("FORMATS").unwrap_or("f32 f16 bf16 fp8 q8_0 q4_k".into());
    let sg = adapter.get_info().subgroup_min_size;
    let c = f16_matrices(adapter).into_iter().max();
    let shapes: &[(usize, usize, usize)] = if tiny {
        &[(72, 256, 256), (40, 256, 512)]
    } else {
        &[
            (333, 1536, 6144),
            (1024, 1536, 1536),
            (1024, 1536, 6144),
            (1024, 6144, 1536),
            (4096, 1536, 6144),
            (4096, 6144, 1536),
        ]
    };
    let label = if g.unchecked { " uncheck" } else { "" };
    match what {
        "shapes" => println!(
            "{:<28}{}",
            "TFLOP/s, tokens x k->n",
            shapes.iter().map(|s| format!(" {}x{}k{}n", s.0, s.1 / 512, s.2 / 512)).collect::<String>()
        ),
        "tiled" | "coop2" | "coop3" => {
            let xm = shapes.iter().map(|s| s.0 * s.1).max().unwrap();
            let wm = shapes.iter().map(|s| s.1 * s.2).max().unwrap();
            let ym = shapes.iter().map(|s| s.0 * s.2).max().unwrap();
            let x = refs::rand(xm, 1, 1.0);
            let w = refs::rand(wm, 2, 0.05);
            let b = refs::rand(6144, 3, 0.1);
            let half = |v: &[f32]| -> Vec<u8> { v.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect() };
            let (bx, bx16, bb, bo) = (g.buf(by(&x)), g.buf(&half(&x)), g.buf(by(&b)), g.out((ym * 4) as u64));
            {
                let (m, k, n) = shapes[0];
                let bw = g.buf(by(&w));
                let t = Instant::now();
                while t.elapsed().as_secs_f64() < 0.3 && !tiny {
                    let _ = g.time(
                        &linear_src("vec4<f32>", L_F32, ""),
                        &[&bx, &bw, &bb, &bo],
                        &u(&[m as u32, n as u32, k as u32, 1]),
                        (n.div_ceil(64) as u32, m.div_ceil(64) as u32),
                    );
                }
            }
            for f in FORMATS.iter().filter(|f| only.split(' ').any(|o| o == f.0)) {
                let bytes: Vec<u8> = match f.0 {
                    "f32" => by(&w).to_vec(),
                    "f16" => half(&w),
                    "bf16" => w.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
                    "fp8" => refs::fp8(&w).0,
                    "q8_0" => refs::q8(&w).0,
                    _ => refs::q4k(&w).0,
                };
                let bw = g.buf(&bytes);
                // name, source, tile of rows, tile of columns, x in f16
                let mut v: Vec<(String, String, usize, usize, bool)> = vec![];
                if what == "tiled" {
                    v.push((
                        "tiled 64x64".into(),
                        linear_src(f.1, f.2, if f.0 == "f16" { "enable f16;\n" } else { "" }),
                        64,
                        64,
                        false,
                    ));
                }
                if let Some(t) = c {
                    if what == "coop2" {
                        v.push((
                            format!("coop2 {0}x{0}", 4 * t),
                            coop2(t, sg, f.1, f.2),
                            4 * t as usize,
                            4 * t as usize,
                            false,
                        ));
                    }
                    if what == "coop3" {
                        let mut add = |mt: u32, nt: u32, h: bool| {
                            v.push((
                                format!("coop3 {}x{}{}", 4 * mt * t, 2 * nt * t, if h { " x16" } else { "" }),
                                coop3(t, sg, mt, nt, if h { "vec4<f16>" } else { "vec4<f32>" }, f.1, f.2),
                                (4 * mt * t) as usize,
                                (2 * nt * t) as usize,
                                h,
                            ))
                        };
                        if f.0 == "f32" || f.0 == "f16" {
                            add(2, 4, false);
                        }
                        if f.0 != "f32" {
                            add(2, 4, true);
                        }
                        if f.0 == "f16" || f.0 == "q8_0" {
                            add(1, 4, true);
                        }
                        if f.0 == "f16" {
                            add(1, 2, true);
                        }
                    }
                }
                for (name, src, bm, bn, h) in v {
                    let mut row = format!("{:<28}", format!("{name} {}{label}", f.0));
                    for &(m, k, n) in shapes {
                        let r = g.time(
                            &src,
                            &[if h { &bx16 } else { &bx }, &bw, &bb, &bo],
                            &u(&[m as u32, n as u32, k as u32, 1]),
                            (n.div_ceil(bn) as u32, m.div_ceil(bm) as u32),
                        );
                        row += &format!(" {}", cell(r, 2.0 * (m * k * n) as f64));
                    }
                    println!("{row}");
                }
            }
        }
        "attn" => {
            for tk in if tiny { vec![70usize] } else { vec![1357, 4429] } {
                let heads = if tiny { 2 } else { 24 };
                let wd = heads * 64;
                let v = refs::rand(tk.next_multiple_of(64) * wd, 7, 1.7);
                let (bv, d) = (g.buf(by(&v)), g.buf(&[0; 16]));
                let h: Vec<u16> = v.iter().map(|v| f16::from_f32(*v).to_bits()).collect();
                let bh = g.buf(bytemuck::cast_slice(&h));
                let bo = g.out((v.len() * 4) as u64);
                let flop = 4.0 * (tk * tk * wd) as f64;
                let mut pr = u(&[tk as u32, tk as u32, wd as u32, 0]);
                pr.extend(0.125f32.to_le_bytes());
                pr.extend([0; 12]);
                let r = g.time(
                    include_str!("attention.wgsl"),
                    &[&bv, &bv, &bv, &d, &bo],
                    &pr,
                    (tk.div_ceil(64) as u32, heads as u32),
                );
                let ms = r.clone().unwrap_or(0.0) * 1e3;
                println!("{:<28} {} TFLOP/s {ms:.2} ms", format!("attention f32 {tk}{label}"), cell(r, flop));
                if let Some(t) = c {
                    let mut pr = u(&[tk as u32, tk as u32, wd as u32]);
                    pr.extend(0.125f32.to_le_bytes());
                    for (name, source) in ATTN {
                        let r = g.time(
                            &attn_coop(source, t, sg),
                            &[&bh, &bh, &bh, &bo],
                            &pr,
                            (tk.div_ceil(4 * t as usize) as u32, heads as u32),
                        );
                        let ms = r.clone().unwrap_or(0.0) * 1e3;
                        println!(
                            "{:<28} {} TFLOP/s {ms:.2} ms",
                            format!("attention {name} {tk}{label}"),
                            cell(r, flop)
                        );
                    }
                }
            }
        }
        "conv" => {
            for (s, ch) in if tiny { vec![(8usize, 64usize)] } else { vec![(64, 512), (512, 128)] } {
                let (x, w, b) =
                    (refs::rand(s * s * ch, 11, 1.0), refs::rand(ch * 9 * ch, 12, 0.05), refs::rand(ch, 13, 0.1));
                let (bx, bw, bb, bo) = (g.buf(by(&x)), g.buf(by(&w)), g.buf(by(&b)), g.out((s * s * ch * 4) as u64));
                let r = g.time(
                    include_str!("conv.wgsl"),
                    &[&bx, &bw, &bb, &bo],
                    &u(&[s as u32, s as u32, ch as u32, ch as u32]),
                    (ch.div_ceil(64) as u32, (s * s).div_ceil(64) as u32),
                );
                let ms = r.clone().unwrap_or(0.0) * 1e3;
                println!(
                    "{:<28} {} TFLOP/s {ms:.2} ms",
                    format!("conv 3x3 {ch}ch {s}x{s}{label}"),
                    cell(r, (2 * s * s * ch * ch * 9) as f64)
                );
            }
        }
        _ => panic!("{what}"),
    }
}
