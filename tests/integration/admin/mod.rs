//! The commands of operators: the program itself, beside plugins that run, with a real Flocker.

mod gc;
mod gc_campaign;
mod lists;
mod questions;
mod release;

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::machine::Machine;
use crate::support::process::program;

/// The outcome of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
    pub(crate) said: String,
}

impl Ended {
    /// Returns the document that it printed, which must be of the form that is documented.
    #[track_caller]
    pub(crate) fn document(&self, form: &str) -> Value {
        let document: Value =
            serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_form(form, &document);
        document
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Checks that stderr has all these parts.
    #[track_caller]
    pub(crate) fn assert_said(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.said.contains(part), "{part:?} in {self:?}");
        }
        self
    }
}

/// Checks that a document is of a form in `docs/schemas`.
#[track_caller]
pub(crate) fn assert_form(form: &str, document: &Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schemas/{form}.schema.json"));
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.enable_format_assertions();
    let schema = compiler.compile(file.to_str().unwrap(), &mut schemas).unwrap();
    if let Err(error) = schemas.validate(document, schema) {
        panic!("{error:#}\n{document:#}");
    }
}

/// Returns the arguments of a command on a machine: those given, and those of its plugin that the command has too.
pub(crate) fn arguments(machine: &Machine, given: &[&str]) -> Vec<String> {
    let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
    let flags = machine.flags();
    let shared = flags.into_iter().filter(|flag| {
        let plugins = ["--endpoint", "--default-size", "--accept-unverified-propagation"];
        !plugins.contains(&name(flag).as_str()) && !given.iter().any(|given| name(given) == name(flag))
    });
    given
        .iter()
        .map(|given| (*given).to_owned())
        .chain(shared)
        .collect()
}

/// Runs a command on a machine.
pub(crate) async fn run(machine: &Machine, given: &[&str]) -> Ended {
    let arguments = arguments(machine, given);
    end(program(&arguments.iter().map(String::as_str).collect::<Vec<_>>())).await
}

/// Runs a program to its end, without an input.
pub(crate) async fn end(mut program: Command) -> Ended {
    let output = program.stdin(std::process::Stdio::null()).output();
    let output = timeout(PATIENCE, output).await.expect("it ends in time").unwrap();
    Ended {
        code: output.status.code(),
        text: String::from_utf8(output.stdout).unwrap(),
        said: String::from_utf8(output.stderr).unwrap(),
    }
}
