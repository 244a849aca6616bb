//! The kernels with cooperative matrices. Their loops over matrices are unrolled, because an array cannot contain matrices.
//! naga requires variables as arguments of the functions that load and store them.

use super::{Call, spread};
use crate::error::Result;
use crate::gpu::{Gpu, Matrices, View};

/// What the source of a kernel with cooperative matrices starts with.
pub(super) const EXTENSIONS: &str = "enable f16;\nenable wgpu_cooperative_matrix;\n";

/// Returns the body of a product.
pub(super) fn body(matrices: Matrices) -> String {
    let Matrices { side, subgroup, grid: [rows, columns] } = matrices;
    let [tile_rows, tile_columns] = matrices.tile();
    let step = matrices.rows_per_load();
    let (x_loads, w_loads) = (tile_rows / step, tile_columns / step);
    let matrix = |scalar, role| matrix_type(side, scalar, role);
    let pairs = || (0..rows).flat_map(move |i| (0..columns).map(move |j| (i, j)));

    let mut declare: String = pairs().map(|(i, j)| format!("    var c{i}_{j} = {}();\n", matrix("f32", "C"))).collect();
    for i in 0..x_loads {
        declare += &format!("    let scale{i} = scale_of(row_exponent(m0 + load_row + {}u));\n", i * step);
        declare += &format!("    var read_x{i} = vec4<f16>();\n");
    }
    (0..w_loads).for_each(|i| declare += &format!("    var read_w{i} = vec4<f16>();\n"));

    let (mut load, mut store) = (String::new(), String::new());
    for i in 0..x_loads {
        load += &format!("    read_x{i} = load_x(m0 + load_row + {}u, k, scale{i});\n", i * step);
        store += &format!("    xs[page * X_PAGE + (load_row + {}u) * STRIDE + load_vector] = read_x{i};\n", i * step);
    }
    for i in 0..w_loads {
        load += &format!("    read_w{i} = load_w(n0 + load_row + {}u, k);\n", i * step);
        store += &format!("    ws[page * W_PAGE + (load_row + {}u) * STRIDE + load_vector] = read_w{i};\n", i * step);
    }

    let mut multiply = String::new();
    for i in 0..rows {
        multiply += &format!("    let xi{i} = first_x + {}u * STRIDE;\n", i * side);
        multiply += &format!("    let a{i} = coopLoadT<{}>(&xs[xi{i}], STRIDE);\n", matrix("f16", "A"));
    }
    for j in 0..columns {
        multiply += &format!("    let wj{j} = first_w + {}u * STRIDE;\n", j * side);
        multiply += &format!("    let b{j} = coopLoad<{}>(&ws[wj{j}], STRIDE);\n", matrix("f16", "B"));
        (0..rows).for_each(|i| multiply += &format!("    c{i}_{j} = coopMultiplyAdd(a{i}, b{j}, c{i}_{j});\n"));
    }
    let finish: String = pairs()
        .map(|(i, j)| {
            format!(
                "    let r{i}_{j} = c{i}_{j};
    coopStoreT(r{i}_{j}, &sums[first_sum], side);
    workgroupBarrier();
    write_sums(m0 + row + {}u, n0 + column + {}u, first_sum, lane);
    workgroupBarrier();\n",
                i * side,
                j * side
            )
        })
        .collect();
    include_str!("product_matrices.wgsl")
        .replace("$SIDE", &side.to_string())
        .replace("$SUBGROUP", &subgroup.to_string())
        .replace("$ROWS", &rows.to_string())
        .replace("$COLUMNS", &columns.to_string())
        .replace("$DECLARE", &declare)
        .replace("$LOAD", &load)
        .replace("$STORE", &store)
        .replace("$MULTIPLY", &multiply)
        .replace("$FINISH", &finish)
}

fn matrix_type(side: u32, scalar: &str, role: &str) -> String {
    format!("coop_mat{side}x{side}<{scalar}, {role}>")
}

/// Returns the kernel of attention with heads of `head` values.
pub(super) fn attention(Matrices { side, subgroup, .. }: Matrices, head: u32) -> String {
    let matrix = |scalar, role| matrix_type(side, scalar, role);
    // The matrices of a head, and of a tile of keys.
    let (columns, blocks) = (head / side, 4);
    let vectors = side / 4;
    let mut queries = String::new();
    for d in 0..columns {
        queries += &format!("    let qd{d} = first_q + {}u;\n", d * vectors);
        queries += &format!("    let q{d} = coopLoadT<{}>(&ks[qd{d}], STRIDE);\n", matrix("f16", "A"));
    }
    let mut scores = String::new();
    for j in 0..blocks {
        scores += &format!("    var c{j} = {}();\n", matrix("f32", "C"));
        for d in 0..columns {
            let b = format!("b{j}_{d}");
            scores += &format!("    let i{b} = {}u * STRIDE + {}u;\n", j * side, d * vectors);
            scores += &format!("    let {b} = coopLoad<{}>(&ks[i{b}], STRIDE);\n", matrix("f16", "B"));
            scores += &format!("    c{j} = coopMultiplyAdd(q{d}, {b}, c{j});\n");
        }
        scores += &format!("    let r{j} = c{j};\n    let s{j} = first_sum + {}u;\n", j * side);
        scores += &format!("    coopStoreT(r{j}, &sums[s{j}], sum_stride);\n");
    }
    let mut values = String::new();
    for j in 0..blocks {
        values += &format!("    let aj{j} = first_weight + {}u;\n", j * side);
        values += &format!("    let a{j} = coopLoadT<{}>(&weights[aj{j}], WEIGHT_STRIDE);\n", matrix("f16", "A"));
    }
    for d in 0..columns {
        values += &format!("    var o{d} = {}();\n", matrix("f32", "C"));
        for j in 0..blocks {
            let v = format!("v{j}_{d}");
            values += &format!("    let i{v} = {}u * STRIDE + {}u;\n", j * side, d * vectors);
            values += &format!("    let {v} = coopLoadT<{}>(&vs[i{v}], STRIDE);\n", matrix("f16", "B"));
            values += &format!("    o{d} = coopMultiplyAdd(a{j}, {v}, o{d});\n");
        }
        values += &format!("    let p{d} = o{d};\n    let t{d} = first_sum + {}u;\n", d * side);
        values += &format!("    coopStoreT(p{d}, &sums[t{d}], sum_stride);\n");
    }
    include_str!("attention_matrices.wgsl")
        .replace("$SIDE", &side.to_string())
        .replace("$SUBGROUP", &subgroup.to_string())
        .replace("$HEAD", &head.to_string())
        .replace("$QUERIES", &queries)
        .replace("$SCORES", &scores)
        .replace("$VALUES", &values)
}

/// Computes the largest magnitude of each row of `width` values.
pub(super) fn magnitudes(gpu: &Gpu, x: &View, width: usize) -> Result<View> {
    let rows = x.len.checked_div(width).unwrap_or(0);
    let out = gpu.buffer(rows)?;
    gpu.call(&Call {
        name: "magnitudes".into(),
        source: &|| include_str!("magnitudes.wgsl").into(),
        inputs: &[x.into()],
        output: &out.buffer,
        parameters: &[rows as u32, width as u32],
        workgroups: spread(rows as u64),
        operations: x.len as u64,
    })?;
    Ok(out)
}
