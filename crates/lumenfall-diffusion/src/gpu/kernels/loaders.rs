//! Functions in WGSL that read weights in any format.

use lumenfall_kernels::Format;

/// Returns the type of the elements of `w`, and the function `w4`, which returns four values of a row.
pub(super) fn loader(format: Format, vectors: bool) -> (&'static str, String) {
    let blocks = format.block_values() > 1;
    let element = if format == Format::F32 { if vectors { "vec4<f32>" } else { "f32" } } else { "u32" };
    if format == Format::F32 && vectors {
        let source = "fn w4(n: u32, k: u32) -> vec4<f32> {
    if (k < p.inputs) {
        return w[(p.w + n * p.inputs + k) / 4u];
    }
    return vec4<f32>();
}";
        return (element, source.into());
    }
    if !vectors && !blocks {
        let source = format!(
            "fn w1(i: u32) -> f32 {{ {} }}
fn w4(n: u32, k: u32) -> vec4<f32> {{
    var values = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {{
        if (k + i < p.inputs) {{
            values[i] = w1(n * p.inputs + k + i);
        }}
    }}
    return values;
}}",
            one(format)
        );
        return (element, source);
    }
    let functions = if blocks { include_str!("weights.wgsl") } else { "" };
    let source = format!(
        "{functions}
fn w4(n: u32, k: u32) -> vec4<f32> {{
    if (k >= p.inputs) {{
        return vec4<f32>();
    }}
    let i = n * p.inputs + k;
    {}
}}",
        four(format)
    );
    (element, source)
}

/// Returns the statements that compute the value with index `i`. Formats with blocks have none.
fn one(format: Format) -> &'static str {
    match format {
        Format::F32 => "return w[p.w + i];",
        Format::F16 => "return unpack2x16float(w[i / 2u])[i % 2u];",
        Format::Bf16 => "return bitcast<f32>(w[i / 2u] >> (i % 2u * 16u) << 16u);",
        Format::F8E4m3 => {
            "let code = (w[i / 4u] >> (i % 4u * 8u)) & 0xffu;
    let exponent = (code >> 3u) & 15u;
    let normal = bitcast<f32>(((exponent + 120u) << 23u) | ((code & 7u) << 20u));
    let value = select(normal, f32(code & 7u) * (1.0 / 512.0), exponent == 0u);
    return select(value, -value, (code & 0x80u) != 0u);"
        }
        Format::F8E5m2 => {
            "let code = (w[i / 4u] >> (i % 4u * 8u)) & 0xffu;
    let exponent = (code >> 2u) & 31u;
    let normal = bitcast<f32>(((exponent + 112u) << 23u) | ((code & 3u) << 21u));
    let value = select(normal, f32(code & 3u) * (1.0 / 65536.0), exponent == 0u);
    return select(value, -value, (code & 0x80u) != 0u);"
        }
        _ => "",
    }
}

/// Returns the statements that compute the values from index `i`, a multiple of 4.
fn four(format: Format) -> &'static str {
    match format {
        Format::F32 => "",
        Format::F16 => "return vec4(unpack2x16float(w[i / 2u]), unpack2x16float(w[i / 2u + 1u]));",
        Format::Bf16 => {
            "let pair = vec2(w[i / 2u], w[i / 2u + 1u]);
    return bitcast<vec4<f32>>(vec4(pair.x << 16u, pair.x & 0xffff0000u, pair.y << 16u, pair.y & 0xffff0000u));"
        }
        // Without subnormal values in between, which a driver may flush.
        Format::F8E4m3 => {
            "let code = (vec4(w[i / 4u]) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu);
    let exponent = (code >> vec4(3u)) & vec4(15u);
    let mantissa = code & vec4(7u);
    let normal = bitcast<vec4<f32>>(((exponent + vec4(120u)) << vec4(23u)) | (mantissa << vec4(20u)));
    let value = select(normal, vec4<f32>(mantissa) * (1.0 / 512.0), exponent == vec4(0u));
    return select(value, -value, (code & vec4(0x80u)) != vec4(0u));"
        }
        Format::F8E5m2 => {
            "let code = (vec4(w[i / 4u]) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu);
    let exponent = (code >> vec4(2u)) & vec4(31u);
    let mantissa = code & vec4(3u);
    let normal = bitcast<vec4<f32>>(((exponent + vec4(112u)) << vec4(23u)) | (mantissa << vec4(21u)));
    let value = select(normal, vec4<f32>(mantissa) * (1.0 / 65536.0), exponent == vec4(0u));
    return select(value, -value, (code & vec4(0x80u)) != vec4(0u));"
        }
        Format::Q8_0 => {
            "let block = i / 32u * 34u;
    return vec4<f32>(unpack4xI8(word(block + 2u + i % 32u))) * half(block);"
        }
        Format::Q4_0 => {
            "let block = i / 32u * 18u;
    let codes = (bytes(block + 2u + i % 16u) >> vec4(i % 32u / 16u * 4u)) & vec4(15u);
    return half(block) * (vec4<f32>(codes) - vec4(8.0));"
        }
        Format::Q4_1 => {
            "let block = i / 32u * 20u;
    let codes = (bytes(block + 4u + i % 16u) >> vec4(i % 32u / 16u * 4u)) & vec4(15u);
    return half(block) * vec4<f32>(codes) + vec4(half(block + 2u));"
        }
        Format::Q5_0 => {
            "let block = i / 32u * 22u;
    let codes = (bytes(block + 6u + i % 16u) >> vec4(i % 32u / 16u * 4u)) & vec4(15u);
    let fifth = (vec4(word(block + 2u) >> (i % 32u)) >> vec4(0u, 1u, 2u, 3u)) & vec4(1u);
    return half(block) * (vec4<f32>(codes + fifth * 16u) - vec4(16.0));"
        }
        Format::Q5_1 => {
            "let block = i / 32u * 24u;
    let codes = (bytes(block + 8u + i % 16u) >> vec4(i % 32u / 16u * 4u)) & vec4(15u);
    let fifth = (vec4(word(block + 4u) >> (i % 32u)) >> vec4(0u, 1u, 2u, 3u)) & vec4(1u);
    return half(block) * vec4<f32>(codes + fifth * 16u) + vec4(half(block + 2u));"
        }
        Format::Q2K => {
            "let block = i / 256u * 84u;
    let part = i % 256u / 16u;
    let at = pairs(part);
    let scales = byte(block + part);
    let codes = (bytes(block + 16u + at.x + i % 16u) >> vec4(at.y)) & vec4(3u);
    return vec4<f32>(codes) * (half(block + 80u) * f32(scales & 15u)) - vec4(half(block + 82u) * f32(scales >> 4u));"
        }
        Format::Q3K => {
            "let block = i / 256u * 110u;
    let part = i % 256u / 16u;
    let at = pairs(part);
    let low = (byte(block + 96u + part % 8u) >> (part / 8u * 4u)) & 15u;
    let high = (byte(block + 104u + part % 4u) >> (part / 4u * 2u)) & 3u;
    let scale = half(block + 108u) * (f32(low | (high << 4u)) - 32.0);
    let codes = (bytes(block + 32u + at.x + i % 16u) >> vec4(at.y)) & vec4(3u);
    let third = (bytes(block + part % 2u * 16u + i % 16u) >> vec4(part / 2u)) & vec4(1u);
    return (vec4<f32>(codes + third * 4u) - vec4(4.0)) * scale;"
        }
        Format::Q4K => {
            "let block = i / 256u * 144u;
    let part = i % 256u / 32u;
    let scale = scale_and_min(block, part);
    let codes = (bytes(block + 16u + part / 2u * 32u + i % 32u) >> vec4(part % 2u * 4u)) & vec4(15u);
    return vec4<f32>(codes) * scale.x - vec4(scale.y);"
        }
        Format::Q5K => {
            "let block = i / 256u * 176u;
    let part = i % 256u / 32u;
    let scale = scale_and_min(block, part);
    let codes = (bytes(block + 48u + part / 2u * 32u + i % 32u) >> vec4(part % 2u * 4u)) & vec4(15u);
    let fifth = (bytes(block + 16u + i % 32u) >> vec4(part)) & vec4(1u);
    return vec4<f32>(codes + fifth * 16u) * scale.x - vec4(scale.y);"
        }
        Format::Q6K => {
            "let block = i / 256u * 210u;
    let part = i % 256u / 16u;
    let at = pairs(part);
    let scale = half(block + 208u) * signed(byte(block + 192u + part));
    let lower = (bytes(block + part / 8u * 64u + part % 4u * 16u + i % 16u) >> vec4(part / 4u % 2u * 4u)) & vec4(15u);
    let upper = (bytes(block + 128u + at.x + i % 16u) >> vec4(at.y)) & vec4(3u);
    return (vec4<f32>(lower | (upper << vec4(4u))) - vec4(32.0)) * scale;"
        }
    }
}
