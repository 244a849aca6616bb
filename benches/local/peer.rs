//! The peer: a process that computes once for each line of its standard input.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts `tools/bench_torch.py` and waits for its warm-up run.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let python = std::env::var("LUMENFALL_BENCH_PYTHON").unwrap_or("python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/bench_torch.py");
        let mut process = Command::new(&python)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                format!("cannot start {python}: {error}; set LUMENFALL_BENCH_PYTHON to a Python interpreter")
            })?;
        let input = process.stdin.take().ok_or("the peer has no standard input")?;
        let output = BufReader::new(process.stdout.take().ok_or("the peer has no standard output")?);
        let mut peer = Self { process, input, output };
        match peer.line()?.as_str() {
            "ready" => Ok(peer),
            other => {
                Err(format!("the peer wrote {other:?} instead of \"ready\"; install tools/requirements.txt").into())
            }
        }
    }

    /// Runs the peer once and returns the time in seconds.
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
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
