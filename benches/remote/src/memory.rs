//! The memory of this process, as Linux reports it.

use std::fs;

use crate::Failure;

/// Resets the peak, and returns the bytes in memory.
pub fn reset_peak() -> Result<u64, Failure> {
    fs::write("/proc/self/clear_refs", "5")?;
    field("VmRSS:")
}

/// Returns the peak in bytes since the last reset.
pub fn peak() -> Result<u64, Failure> {
    field("VmHWM:")
}

fn field(name: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).ok_or("this system does not report the memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
