//! Mistakes of users and orchestrators, and the errors they get.

mod faults;
mod files;
mod hidden;
mod in_use;
mod requests;
mod trust;

use crate::support::process::run;

/// Checks that the program ends with that exit code, and reports all these parts of the problem.
pub(crate) async fn assert_ends(arguments: &[&str], exit_code: i32, parts: &[&str]) {
    let (status, said) = run(arguments).await;
    assert_eq!(status.code(), Some(exit_code), "{arguments:?} said {said:?}");
    for part in parts {
        assert!(said.contains(part), "{part:?} in {said:?}");
    }
}

/// Returns the settings of `serve` with some replaced, in the form `--name=value`.
pub(crate) fn with<'a>(flags: &'a [String], replaced: &'a [&str]) -> Vec<&'a str> {
    let name = |flag: &'a str| flag.split('=').next();
    let kept = flags
        .iter()
        .map(String::as_str)
        .filter(|flag| replaced.iter().all(|replacement| name(replacement) != name(flag)));
    ["serve"]
        .into_iter()
        .chain(kept)
        .chain(replaced.iter().copied())
        .collect()
}
