//! The program: parses the command line and runs the command.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use flocker_csi::commands::cli::{Cli, Command};
use flocker_csi::commands::failure::Failure;
use flocker_csi::commands::{demo, embedded, export, logging, serve, standalone, stdout};
use flocker_csi::config::layers::Refusal;
use tokio::runtime::{Builder, Runtime};

/// How long threads that still block may delay the end of the process.
const BLOCKED_GRACE: Duration = Duration::from_secs(1);

/// Allocations of this size in bytes, or more, are mapped apart from the heap.
#[cfg(target_env = "gnu")]
const MAPPED_SIZE: i32 = 128 << 10;

fn main() -> ExitCode {
    share_one_heap();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let (cli, warnings) = match Cli::read(&arguments, &std::env::vars_os().collect()) {
        Ok(read) => read,
        Err(Refusal::CommandLine(error)) => error.exit(),
        Err(Refusal::Settings(problems)) => {
            let status = report(&Failure::Configuration(problems));
            stdout::finish();
            return status;
        }
    };
    logging::init(cli.command.log());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let status = match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    };
    stdout::finish();
    status
}

fn run(command: Command) -> Result<(), Failure> {
    if let Command::Demo(_) = command {
        // A mount namespace belongs to a thread, and threads that it starts inherit it.
        demo::enter_own_namespace()?;
    }
    let only_check = command.only_checks();
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Serve(args) if only_check => serve::check(&args.config).await.map(drop),
            Command::Serve(args) => serve::run(args.config).await,
            // It creates every file that its settings name.
            Command::Standalone(_) if only_check => Ok(()),
            Command::Standalone(args) => standalone::run(*args).await,
            Command::Embedded(args) => embedded::run(args).await,
            Command::Export(args) => export::run(*args).await,
            Command::Demo(_) => demo::run().await,
        }
    });
    runtime.shutdown_timeout(BLOCKED_GRACE);
    if only_check && ended.is_ok() {
        stdout::announce("the configuration is valid");
    }
    ended
}

fn runtime() -> Result<Runtime, Failure> {
    // The plugin spends nearly all time waiting for Flocker and the kernel.
    let built = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    built.map_err(|error| Failure::context("start the runtime", &error))
}

/// Makes all threads share one heap, and returns the memory of a long mount table or list to the kernel at once.
///
/// By default the C library gives each thread a heap of its own and raises the threshold for mappings of their own: nine
/// heaps of up to 5 MiB were measured with a thousand volumes.
#[allow(unsafe_code, reason = "no crate wraps these calls")]
fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls only change settings of the allocator, which is allowed at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_SIZE);
    }
}

fn report(failure: &Failure) -> ExitCode {
    stdout::last_words(failure.lines());
    failure.exit_code()
}
