use half::f16;
use rayon::prelude::*;
pub fn rand(n: usize, seed: u64, s: f32) -> Vec<f32> {
    let mut z = seed.wrapping_mul(0x9E3779B97F4A7C15) | 1;
    (0..n)
        .map(|_| {
            let mut t = 0.0;
            for _ in 0..3 {
                z ^= z << 13;
                z ^= z >> 7;
                z ^= z << 17;
                t += (z >> 40) as f32 / 16777216.0 - 0.5;
            }
            t * 2.0 * s
        })
        .collect()
}
fn gelu(v: f32) -> f32 {
    0.5 * v * (1.0 + (0.7978845608f32 * (v + 0.044715 * v * v * v)).tanh())
}
pub fn linear_raw(x: &[f32], w: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut y = vec![0f32; m * n];
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            false,
            x.as_ptr(),
            1,
            k as isize,
            w.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(2),
        );
    }
    y.par_chunks_mut(n).for_each(|r| r.iter_mut().zip(b).for_each(|(v, b)| *v += b));
    y
}
pub fn linear(x: &[f32], w: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let mut y = linear_raw(x, w, b, m, k, n);
    y.par_iter_mut().for_each(|v| *v = gelu(*v));
    y
}
pub fn norm(x: &[f32], sh: &[f32], sc: &[f32], w: usize) -> Vec<f32> {
    x.chunks(w)
        .flat_map(|r| {
            let m = r.iter().map(|v| *v as f64).sum::<f64>() / w as f64;
            let v = r.iter().map(|v| (*v as f64 - m).powi(2)).sum::<f64>() / w as f64;
            let i = 1.0 / (v + 1e-6).sqrt();
            r.iter()
                .enumerate()
                .map(move |(j, x)| ((*x as f64 - m) * i * (1.0 + sc[j] as f64) + sh[j] as f64) as f32)
                .collect::<Vec<_>>()
        })
        .collect()
}
pub fn attention(q: &[f32], k: &[f32], v: &[f32], t: usize, w: usize, h: usize, mode: u32, bias: &[f32]) -> Vec<f32> {
    let d = w / h;
    let mut y = vec![0f32; t * w];
    y.par_chunks_mut(w).enumerate().for_each(|(i, row)| {
        for hd in 0..h {
            let o = hd * d;
            let s: Vec<f32> = (0..t)
                .map(|j| {
                    if mode == 1 && j > i {
                        return -1e30;
                    }
                    let mut s = 0f32;
                    for c in 0..d {
                        s += q[i * w + o + c] * k[j * w + o + c]
                    }
                    s * 0.125 + if mode == 2 { bias[(hd * t + i) * t + j] } else { 0.0 }
                })
                .collect();
            let mx = s.iter().cloned().fold(f32::MIN, f32::max);
            let e: Vec<f32> = s.iter().map(|s| (s - mx).exp()).collect();
            let sum: f32 = e.iter().sum();
            for j in 0..t {
                let p = e[j] / sum;
                for c in 0..d {
                    row[o + c] += p * v[j * w + o + c]
                }
            }
        }
    });
    y
}
pub fn conv(x: &[f32], w: &[f32], b: &[f32], h: usize, wi: usize, ci: usize, co: usize) -> Vec<f32> {
    let mut y = vec![0f32; h * wi * co];
    y.par_chunks_mut(co).enumerate().for_each(|(p, o)| {
        let (py, px) = (p / wi, p % wi);
        for c in 0..co {
            let mut s = b[c];
            for t in 0..9 {
                let (iy, ix) = ((py + t / 3) as isize - 1, (px + t % 3) as isize - 1);
                if iy < 0 || ix < 0 || iy >= h as isize || ix >= wi as isize {
                    continue;
                }
                let xr = &x[(iy as usize * wi + ix as usize) * ci..][..ci];
                let wr = &w[(c * 9 + t) * ci..][..ci];
                s += xr.iter().zip(wr).map(|(a, b)| a * b).sum::<f32>();
            }
            o[c] = s;
        }
    });
    y
}
/// Q8_0 as two arrays, and what it stands for.
pub fn q8(w: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let (mut q, mut s, mut d) = (vec![], vec![], vec![]);
    for b in w.chunks(32) {
        let a = b.iter().fold(0f32, |a, v| a.max(v.abs())) / 127.0;
        let a16 = f16::from_f32(a);
        s.extend(a16.to_le_bytes());
        for v in b {
            let i = (v / a).round() as i8;
            q.push(i as u8);
            d.push(i as f32 * a16.to_f32());
        }
    }
    q.extend(s);
    (q, d)
}
/// Random scales, plain nibbles: an exact Q4_K block for whatever it stands for.
pub fn q4k(w: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let (mut out, mut deq) = (vec![], vec![]);
    for (bi, b) in w.chunks(256).enumerate() {
        let mut sc = [0u8; 8];
        let mut mn = [0u8; 8];
        let d = f16::from_f32(0.0002);
        let dm = f16::from_f32(0.0015);
        for j in 0..8 {
            sc[j] = (20 + (bi * 7 + j * 5) % 44) as u8;
            mn[j] = (17 + (bi * 3 + j * 11) % 46) as u8;
        }
        let mut p = [0u8; 12];
        for j in 0..4 {
            p[j] = (sc[j] & 63) | ((sc[j + 4] >> 4) << 6);
            p[j + 4] = (mn[j] & 63) | ((mn[j + 4] >> 4) << 6);
            p[j + 8] = (sc[j + 4] & 15) | ((mn[j + 4] & 15) << 4);
        }
        let mut q = [0u8; 256];
        for (i, v) in b.iter().enumerate() {
            let j = i / 32;
            let (s, m) = (d.to_f32() * sc[j] as f32, dm.to_f32() * mn[j] as f32);
            q[i] = ((v + m) / s).round().clamp(0.0, 15.0) as u8;
            deq.push(q[i] as f32 * s - m);
        }
        out.extend(d.to_le_bytes());
        out.extend(dm.to_le_bytes());
        out.extend(p);
        for g in 0..4 {
            for l in 0..32 {
                out.push(q[g * 64 + l] | (q[g * 64 + 32 + l] << 4));
            }
        }
    }
    (out, deq)
}
pub fn fp8(w: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let dec = |b: u8| f32::from_bits(((b as u32 & 0x80) << 24) | ((b as u32 & 0x7f) << 20)) * 2f32.powi(120);
    let q: Vec<u8> = w
        .iter()
        .map(|v| {
            let s = (v.abs() * 2f32.powi(-120)).to_bits();
            let r = ((s + (1 << 19)) >> 20).min(0x7e) as u8;
            r | if *v < 0.0 { 0x80 } else { 0 }
        })
        .collect();
    let d = q.iter().map(|b| dec(*b)).collect();
    (q, d)
}
