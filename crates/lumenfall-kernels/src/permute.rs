//! The copy of an array in another order of its dimensions.

/// Returns the values of an array whose dimensions have the lengths `shape`. Neighbours in a dimension are `strides` values apart in
/// `source`.
///
/// Returns fewer values if the source does not contain all of them.
pub fn permute(source: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    let mut values = Vec::with_capacity(count);
    let mut index = vec![0; shape.len()];
    let mut offset = 0;
    for _ in 0..count {
        let Some(value) = source.get(offset) else { break };
        values.push(*value);
        for ((index, dim), stride) in index.iter_mut().zip(shape).zip(strides).rev() {
            *index += 1;
            offset += stride;
            if *index < *dim {
                break;
            }
            offset -= stride * dim;
            *index = 0;
        }
    }
    values
}
