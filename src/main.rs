//! The program: parses the command line and runs the command.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use flocker_csi::commands::cli::{CheckDepth, Cli, Command};
use flocker_csi::commands::failure::Failure;
use flocker_csi::commands::{admin, demo, embedded, export, logging, memory, serve, standalone, stdout};
use flocker_csi::config::layers::Refusal;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::runtime::{Builder, Runtime};

/// How long threads that still block may delay the end of the process.
const BLOCKED_GRACE: Duration = Duration::from_secs(1);

/// Returns the power of a number.
///
/// It is the only function of the C library for mathematics that the program needs: Tokio calls it for its statistics. With it
/// from there, that library would be loaded, and half a megabyte of it would stay resident.
#[allow(
    unsafe_code,
    reason = "its name is that of C's function, and so is what it does"
)]
#[unsafe(no_mangle)]
extern "C" fn pow(base: f64, exponent: f64) -> f64 {
    libm::pow(base, exponent)
}

fn main() -> ExitCode {
    let dumpable = keep_memory_private();
    memory::share_one_heap();
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
    if let Err(error) = dumpable {
        tracing::warn!("A core dump of this process would hold its keys: {error}");
    }
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
    let checks = command.only_checks();
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Serve(args) if checks == Some(CheckDepth::Files) => {
                admin::check_files(&args.config, &args.doubts).await
            }
            Command::Serve(args) if checks == Some(CheckDepth::Deep) => {
                admin::check_deep(&args.config, &args.doubts).await
            }
            Command::Serve(args) => serve::run(args.config).await,
            Command::Standalone(_) if checks == Some(CheckDepth::Deep) => Err(Failure::Configuration(vec![
                "--check-config=deep is for serve: standalone starts its own Flocker, which cannot be asked before".to_owned(),
            ])),
            // It creates every file that its settings name.
            Command::Standalone(_) if checks.is_some() => {
                stdout::announce("the configuration is valid");
                Ok(())
            }
            Command::Standalone(args) => standalone::run(*args).await,
            Command::Embedded(args) => embedded::run(*args).await,
            Command::Export(args) => export::run(*args).await,
            Command::Volumes(args) => admin::volumes(*args).await,
            Command::Nodes(args) => admin::nodes(*args).await,
            Command::Leases(args) => admin::leases(*args).await,
            Command::Doctor(args) => admin::doctor(*args).await,
            Command::Gc(args) => admin::gc(*args).await,
            Command::Demo(_) => demo::run().await,
        }
    });
    runtime.shutdown_timeout(BLOCKED_GRACE);
    ended
}

fn runtime() -> Result<Runtime, Failure> {
    // The plugin spends nearly all time waiting for Flocker and the kernel.
    let built = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    built.map_err(|error| Failure::context("start the runtime", &error))
}

/// Keeps keys and secrets out of core dumps, and away from other processes of the same user.
///
/// Files of `/proc/PID` that show memory, environment or descriptors then take the capability `SYS_PTRACE`. Nothing changes
/// for the process itself.
fn keep_memory_private() -> std::io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn report(failure: &Failure) -> ExitCode {
    stdout::last_words(failure.lines());
    failure.exit_code()
}
