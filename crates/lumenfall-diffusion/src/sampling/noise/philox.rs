//! Philox4x32-10 (Salmon et al., 2011): four random words of a counter and a key.

const ROUNDS: u32 = 10;
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Returns the words of a counter, given as two halves of 64 bits with the lower one first.
pub(super) fn words(low: u64, high: u64, key: u64) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
    let [mut first_key, mut second_key] = [key as u32, (key >> 32) as u32];
    for _ in 0..ROUNDS {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(a);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(c);
        (a, b, c, d) =
            ((second >> 32) as u32 ^ b ^ first_key, second as u32, (first >> 32) as u32 ^ d ^ second_key, first as u32);
        first_key = first_key.wrapping_add(INCREMENTS[0]);
        second_key = second_key.wrapping_add(INCREMENTS[1]);
    }
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::words;

    /// The vectors of `philox4x32 10` in `tests/kat_vectors` of Random123.
    #[test]
    fn words_equal_the_published_vectors() {
        assert_eq!(words(0, 0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(words(u64::MAX, u64::MAX, u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            words(0x85a3_08d3_243f_6a88, 0x0370_7344_1319_8a2e, 0x299f_31d0_a409_3822),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }
}
