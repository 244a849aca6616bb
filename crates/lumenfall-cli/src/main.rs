//! The command `lumenfall` generates and edits images with Stable Diffusion 3.5 Medium.
//!
//! `lumenfall --help` shows the commands, options and exit codes.

mod arguments;
mod commands;
mod files;
mod help;
mod progress;
mod report;

use std::env;
use std::pin::pin;
use std::process::ExitCode;

use arguments::{Arguments, Parsed};
use futures_util::future::{Either, select};
use lexopt::Parser;
use lumenfall::{Error, ErrorKind};
use report::{Failure, Report};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    // Looked for here, because errors in the arguments are reported as JSON too.
    let json = env::args_os().any(|argument| argument == "--json");
    let result = match Arguments::parse(Parser::from_env()) {
        Ok(Parsed::Text(text)) => return report::print_text(text),
        Ok(Parsed::Run(arguments)) => run(&arguments),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(report) => report.print(json),
        Err(failure) => failure.print(json),
    }
}

fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::Io, format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(run_or_interrupt(arguments));
    // Name resolution may still block a thread after Ctrl-C.
    runtime.shutdown_background();
    result
}

/// Runs the command until it is done or the user presses Ctrl-C, which drops its future and so cancels the work.
async fn run_or_interrupt(arguments: &Arguments) -> Result<Report, Failure> {
    let command = pin!(commands::run(arguments));
    let interrupt = pin!(tokio::signal::ctrl_c());
    match select(interrupt, command).await {
        Either::Left((Ok(()), _)) => Err(Failure::Interrupted { maybe_billed: arguments.may_be_billed() }),
        // The signal cannot be received on this system: it then ends the process directly.
        Either::Left((Err(_), command)) => Ok(command.await?),
        Either::Right((result, _)) => Ok(result?),
    }
}
