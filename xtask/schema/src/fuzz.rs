//! The function of the fuzz target `drift` and of the test of the inputs that it found.

use crate::drift::changes;

/// Compares a schema with any input.
pub(crate) fn drift(data: &[u8]) {
    let before = serde_json::from_str(include_str!("../../../schemas/stable-diffusion-3.5-medium.json"));
    let (Ok(before), Ok(now)) = (before, serde_json::from_slice(data)) else { return };
    for change in changes(&before, &now).unwrap_or_default() {
        let _ = (change.to_string(), change.is_breaking());
        assert_ne!(change.before, change.now);
    }
}
