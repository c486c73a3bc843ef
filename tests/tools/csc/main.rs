//! A stand-in for `csc`, for machines without it: no registry provides it any more.
//!
//! It accepts and refuses the same command lines as csc, sends the same requests, and prints the same output, as either
//! build of csc (`CSC_BUILD=rexray` or `dell`). The walk-through of `docs/csc.md` runs the commands of that page with it,
//! or with a real csc.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a command line")]

mod answers;
mod client;
mod commands;
#[cfg(test)]
mod page;
mod requests;
mod syntax;
#[path = "../../integration/support/verbatim.rs"]
mod verbatim;

use std::env;
use std::process::ExitCode;

use syntax::{Build, Invocation};

/// Why a command failed, in csc's words.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Makes a failure of the command line or of the client itself.
    fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            eprintln!("{message}\n\nPlease use -h,--help for more information");
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<(), Failure> {
    let build = match env::var("CSC_BUILD").as_deref() {
        Ok("rexray") => Build::Rexray,
        Ok("dell") => Build::Dell,
        _ => return Err(Failure::usage("CSC_BUILD is neither rexray nor dell")),
    };
    let words: Vec<_> = env::args().skip(1).collect();
    let call = Invocation::parse(build, &words).map_err(Failure::usage)?;
    let endpoint = call.text("endpoint").map(str::to_owned);
    let endpoint = endpoint
        .or_else(|| env::var("CSI_ENDPOINT").ok())
        .unwrap_or_default();
    client::run(&call, &endpoint)
}
