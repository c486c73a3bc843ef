//! The settings themselves, and the file with this node's UUID.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::check::{Check, Subject};
use super::examination::{Examination, blocking};
use super::finding::Finding;
use crate::commands::serve::checks::own_directories;
use crate::commands::serve::kubelet::RegistrationSettings;
use crate::commands::serve::parts::sources;
use crate::flocker::node_identity;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "settings",
        subject: Subject::Configuration,
        needs: &[],
        run: settings,
    },
    Check {
        name: "node-id-file",
        subject: Subject::Configuration,
        needs: &[],
        run: node_id_file,
    },
];

fn settings<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let config = examination.config;
    let registration = RegistrationSettings::of(config).err();
    let wrong: Vec<_> = registration
        .into_iter()
        .chain(own_directories(config).err())
        .collect();
    let doubts = [&config.doubts()[..], examination.doubts].concat();
    let finding = if !wrong.is_empty() {
        Finding::error(wrong.join("; "))
    } else if !doubts.is_empty() {
        Finding::warning(doubts.join("; "))
    } else {
        Finding::ok(format!(
            "they agree with each other; mode = {}",
            config.mode.name()
        ))
    };
    async move { finding }.boxed()
}

fn node_id_file<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let sources = sources(examination.config);
    let file = sources.node_id_file.display().to_string();
    let check = move || match node_identity::check(&sources) {
        Ok(()) if sources.node_id.is_some() => Finding::ok("node_id is set, so it is not read"),
        Ok(()) if sources.node_id_file.exists() => Finding::ok(format!("{file} holds a UUID")),
        Ok(()) => Finding::ok(format!("{file} does not exist, and need not")),
        Err(error) => Finding::error(error.chain())
            .next(format!("write the UUID of this node into {file}, or remove it")),
    };
    blocking(check).boxed()
}
