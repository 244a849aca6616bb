//! Counts a client's allocations per small call: `allocations NAME BASE`.

use remote_bench::Failure;
use remote_bench::subject::Subject;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const WARM_UP: u64 = 100;
const CALLS: u64 = 1000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, base] = arguments.as_slice() else { return Err("usage: allocations NAME BASE".into()) };
    let _profiler = dhat::Profiler::builder().testing().build();
    let subject = Subject::new(name, base)?;
    for _ in 0..WARM_UP {
        subject.small().await?;
    }
    let before = dhat::HeapStats::get();
    for _ in 0..CALLS {
        subject.small().await?;
    }
    let after = dhat::HeapStats::get();
    let blocks = (after.total_blocks - before.total_blocks) as f64 / CALLS as f64;
    let bytes = (after.total_bytes - before.total_bytes) as f64 / CALLS as f64;
    println!("{}", serde_json::json!({ "blocks": blocks, "bytes": bytes }));
    Ok(())
}
