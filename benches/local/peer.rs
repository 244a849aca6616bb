//! The other side of a comparison: a process that runs once for every line it is sent.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `tools/bench_torch.py` and waits until it is warm.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let python = std::env::var("LUMENFALL_BENCH_PYTHON").unwrap_or("python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/bench_torch.py");
        let mut process = Command::new(&python)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {python}: {error}; set LUMENFALL_BENCH_PYTHON"))?;
        let input = process.stdin.take().ok_or("the peer has no input")?;
        let output = BufReader::new(process.stdout.take().ok_or("the peer has no output")?);
        let mut peer = Self { process, input, output };
        match peer.line()?.as_str() {
            "ready" => Ok(peer),
            other => {
                Err(format!("the peer said {other:?} instead of ready; does python have tools/requirements.txt?")
                    .into())
            }
        }
    }

    /// Runs it once and returns the seconds.
    pub(crate) fn run(&mut self) -> Result<f64, Box<dyn Error>> {
        writeln!(self.input, "run")?;
        self.input.flush()?;
        Ok(self.line()?.parse()?)
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It only computes: nothing is lost, and a failure to end it has no one to be told.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
