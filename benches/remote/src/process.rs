//! A client in a separate process, which executes one command per line and prints one line of JSON for each.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use remote_bench::subject::Subject;
use remote_bench::{Failure, memory};
use serde::{Deserialize, Serialize};

/// The cost of one command.
#[derive(Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) seconds: f64,
    /// The increase of the peak memory in bytes.
    pub(crate) growth: f64,
}

/// A running client.
pub(crate) struct Process {
    pub(crate) name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts this program as the client `name`.
    pub(crate) fn start(name: &str, base: &str) -> Result<Self, Box<dyn Error>> {
        Self::spawn(name, Command::new(std::env::current_exe()?).args(["client", name, base]))
    }

    /// Starts openai-python.
    pub(crate) fn start_python(base: &str) -> Result<Self, Box<dyn Error>> {
        let python = std::env::var("LUMENFALL_BENCH_PYTHON").unwrap_or("python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/bench_openai.py");
        Self::spawn("openai-python", Command::new(python).args([script, base]))
    }

    fn spawn(name: &str, command: &mut Command) -> Result<Self, Box<dyn Error>> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let input = child.stdin.take().ok_or("the client has no input")?;
        let output = BufReader::new(child.stdout.take().ok_or("the client has no output")?);
        Ok(Self { name: name.into(), child, input, output })
    }

    /// Executes `command` and returns its cost.
    pub(crate) fn run(&mut self, command: &str) -> Result<Measure, Box<dyn Error>> {
        writeln!(self.input, "{command}")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| format!("{} failed at {command:?}", self.name).into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the client `name` in this process until its input ends.
pub(crate) fn serve(name: &str, base: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let subject = Subject::new(name, base).map_err(|error| error.to_string())?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let measure = runtime.block_on(measure(&subject, &line)).map_err(|error| format!("{line:?}: {error}"))?;
        println!("{}", serde_json::to_string(&measure)?);
    }
    Ok(())
}

async fn measure(subject: &Subject, command: &str) -> Result<Measure, Failure> {
    let (what, argument) = command.split_once(' ').unwrap_or((command, ""));
    let before = memory::reset_peak()?;
    let started = Instant::now();
    match what {
        "small" => {
            for _ in 0..argument.parse()? {
                subject.small().await?;
            }
        }
        "large" => {
            let images = subject.large().await?;
            // The images must still be in memory when the peak is read.
            let seconds = started.elapsed().as_secs_f64();
            let growth = memory::peak()?.saturating_sub(before) as f64;
            if images.iter().map(|image| image.len()).sum::<usize>() == 0 {
                return Err("the response contains no images".into());
            }
            return Ok(Measure { seconds, growth });
        }
        "upload" => drop(subject.upload(Path::new(argument)).await?),
        "download" => drop(subject.download(Path::new(argument)).await?),
        _ => return Err("unknown command".into()),
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Measure { seconds, growth: memory::peak()?.saturating_sub(before) as f64 })
}
