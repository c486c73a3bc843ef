//! The program: reads what it is told, and runs that.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use flocker_csi::commands::cli::{Cli, Command};
use flocker_csi::commands::failure::Failure;
use flocker_csi::commands::{demo, embedded, export, serve, standalone, stdout, telemetry};
use flocker_csi::config::layers::Refusal;
use tokio::runtime::{Builder, Runtime};

/// How long threads that still block may keep the process from ending.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// What is as big as this, in bytes, is never a part of the heap.
#[cfg(target_env = "gnu")]
const BIG: i32 = 128 << 10;

fn main() -> ExitCode {
    share_one_heap();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let (cli, warnings) = match Cli::read(&arguments, &std::env::vars_os().collect()) {
        Ok(read) => read,
        Err(Refusal::CommandLine(error)) => error.exit(),
        Err(Refusal::Settings(problems)) => return tell(&Failure::Configuration(problems)),
    };
    telemetry::init(cli.command.log());
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => tell(&failure),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    if let Command::Demo(_) = command {
        // A mount namespace belongs to a thread, and later ones inherit it.
        demo::enter_own_namespace()?;
    }
    let only_check = command.only_checks();
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Serve(args) if only_check => serve::check(&args.config).await.map(drop),
            Command::Serve(args) => serve::run(args.config).await,
            // Whatever it names it makes itself.
            Command::Standalone(_) if only_check => Ok(()),
            Command::Standalone(args) => standalone::run(*args).await,
            Command::Embedded(args) => embedded::run(args).await,
            Command::Export(args) => export::run(*args).await,
            Command::Demo(_) => demo::run().await,
        }
    });
    runtime.shutdown_timeout(LAST_CALLS);
    if only_check && ended.is_ok() {
        stdout::announce("the configuration is valid");
    }
    ended
}

fn runtime() -> Result<Runtime, Failure> {
    // Nearly all time is spent waiting for Flocker and the kernel.
    let built = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|error| Failure::while_doing("start the runtime", &error))
}

/// Makes all threads share one heap, which gives back at once what a long mount table or list took of it.
///
/// By default the C library gives each of them its own, and learns to keep what is big: nine heaps of up to 5 MiB were
/// measured with a thousand volumes.
#[allow(unsafe_code, reason = "no crate wraps these calls")]
fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls only change settings of the allocator, which is allowed at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, BIG);
    }
}

fn tell(failure: &Failure) -> ExitCode {
    for line in failure.lines() {
        stdout::tell(line);
    }
    failure.exit_code()
}
