//! The program: reads what it is told, and runs that.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use flocker_csi::cli::{Cli, Command};
use flocker_csi::config::layers::Refusal;
use flocker_csi::failure::Failure;
use flocker_csi::stdout::announce;
use flocker_csi::{demo, embedded, serve, standalone, telemetry};
use tokio::runtime::{Builder, Runtime};

/// How long threads that still block may keep the process from ending.
const LAST_CALLS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
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
            Command::Demo(_) => demo::run().await,
        }
    });
    runtime.shutdown_timeout(LAST_CALLS);
    if only_check && ended.is_ok() {
        announce("the configuration is valid");
    }
    ended
}

fn runtime() -> Result<Runtime, Failure> {
    // Nearly all time is spent waiting for Flocker and the kernel.
    let built = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|error| Failure::while_doing("start the runtime", &error))
}

fn tell(failure: &Failure) -> ExitCode {
    for line in failure.lines() {
        eprintln!("flocker-csi: {line}");
    }
    failure.exit_code()
}
