//! `gc --apply` on a node, at any moment of a sequence.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::Value;
use uuid::Uuid;

use super::case::Verdict;
use super::fixture::Fixture;
use super::tally::{COLLECTED, NOT_COLLECTED, Tally};
use crate::admin;

const RULE: &str = "gc removes what nothing uses, and only that, and nothing while the plugin runs";
/// The minor number of a loop device that no machine has.
const UNUSED: u32 = 1_000_000;

impl Fixture {
    /// Removes what is left on a node, and there always is something.
    pub(super) async fn collect(&self, node: usize, tally: &Tally) -> Verdict {
        let machine = &self.machines[node];
        let planted = machine.config.plugin.device_dir.join(Uuid::new_v4().to_string());
        // The plugin makes the directory with its first device node, and removes it with the last.
        fs::create_dir_all(planted.parent().unwrap()).unwrap();
        mknodat(
            CWD,
            &planted,
            FileType::BlockDevice,
            Mode::RUSR,
            makedev(7, UNUSED),
        )
        .unwrap();
        let before = self.look().await;
        let command = ["gc", "--apply", "--interval=1ms", "--output=json"];
        let ended = admin::run(machine, &command).await;
        if self.process(node).is_some() {
            tally.note(NOT_COLLECTED);
            let is_untouched = planted.exists();
            fs::remove_file(&planted).unwrap();
            return if is_untouched && ended.code == Some(1) && ended.text.is_empty() {
                Ok(())
            } else {
                Err(format!("broken: {RULE}: the plugin runs, and {ended:?}"))
            };
        }
        tally.note(COLLECTED);
        if ended.code != Some(0) {
            return Err(format!("broken: {RULE}: {ended:?}"));
        }
        let document = ended.document("gc");
        let leftovers = document["leftovers"].as_array().unwrap();
        let removed = || leftovers.iter().filter(|left| left["outcome"] == "removed");
        if planted.exists() || !removed().any(|left| left["path"].as_str().map(Path::new) == Some(&planted)) {
            return Err(format!(
                "broken: {RULE}: {} was left: {document:#}",
                planted.display()
            ));
        }
        let volume = |left: &Value| left["volume"].as_str().map(|id| Uuid::try_parse(id).unwrap());
        let is_used = |id: Uuid| {
            let mut ours = before.ours.iter();
            ours.any(|ours| ours.node == node && ours.dataset == Some(id))
        };
        match removed().find(|left| volume(left).is_some_and(is_used)) {
            Some(left) => Err(format!(
                "broken: {RULE}: {left} was removed, with {:?}",
                before.ours
            )),
            None => Ok(()),
        }
    }
}
