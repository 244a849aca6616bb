// Functions for weights in the formats of ggml. w contains the bytes of the file.

fn byte(at: u32) -> u32 {
    return (w[at / 4u] >> (at % 4u * 8u)) & 0xffu;
}

// The four bytes from an even position.
fn word(at: u32) -> u32 {
    if (at % 4u == 0u) {
        return w[at / 4u];
    }
    return (w[at / 4u] >> 16u) | (w[at / 4u + 1u] << 16u);
}

// The f16 at an even position. A driver may flush subnormal values, which the scales of small weights are, if it converts.
fn half(at: u32) -> f32 {
    let bits = (w[at / 4u] >> (at % 4u * 8u)) & 0xffffu;
    let exponent = (bits >> 10u) & 31u;
    let mantissa = bits & 1023u;
    let normal = bitcast<f32>(((exponent + 112u) << 23u) | (mantissa << 13u));
    let value = select(normal, f32(mantissa) * (1.0 / 16777216.0), exponent == 0u);
    return select(value, -value, (bits & 0x8000u) != 0u);
}

// The four bytes from an even position.
fn bytes(at: u32) -> vec4<u32> {
    return (vec4(word(at)) >> vec4(0u, 8u, 16u, 24u)) & vec4(0xffu);
}

// The signed value of a byte.
fn signed(byte: u32) -> f32 {
    return f32(i32(byte << 24u) >> 24u);
}

// The position and the shift of the two bits of the values with index 16 * i in a block of 256 values.
fn pairs(i: u32) -> vec2<u32> {
    return vec2(i / 8u * 32u + i % 2u * 16u, i / 2u % 4u * 2u);
}

// The scale and the minimum of 32 values, from 6 bits each.
fn scale_and_min(block: u32, i: u32) -> vec2<f32> {
    let low = byte(block + 4u + i % 4u);
    let middle = byte(block + 8u + i % 4u);
    let high = byte(block + 12u + i % 4u);
    let first = vec2(low & 63u, middle & 63u);
    let last = vec2((high & 15u) | (low >> 6u << 4u), (high >> 4u) | (middle >> 6u << 4u));
    return vec2(half(block), half(block + 2u)) * vec2<f32>(select(last, first, i < 4u));
}
