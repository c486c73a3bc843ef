//! The commands that an operator runs before anything of Mesos' is deleted.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::pages::blocks;
use super::tree::repository;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

/// Returns the commands of the page that have to print nothing, for the volume with this id.
fn looks(id: &str) -> Vec<String> {
    let page = fs::read_to_string(repository().join("deploy/mesos/README.md")).unwrap();
    let looks: Vec<_> = blocks(&page, "sh")
        .into_iter()
        .filter(|block| block.contains("mountinfo"))
        .map(|block| block.replace("ID=orders-db", &format!("ID={id}")))
        .collect();
    assert_eq!(looks.len(), 2, "one for a volume, one for all");
    assert!(looks[0].contains(&format!("ID={id}")), "{looks:?}");
    looks
}

fn output(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_commands_on_the_page_of_mesos_show_what_is_still_mounted() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // Unique on this machine: other tests mount below such directories too.
        let id = format!("orders-{}", uuid::Uuid::new_v4());
        let directory = PathBuf::from(format!(
            "work/csi/com.clusterhq.flocker.csi/isolator/volumes/{id}"
        ));
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let mut usage = machine.usage("data", volume, &context);
        usage.staging = machine.path("").join(&directory).join("staging");
        usage.target = machine.path("").join(&directory).join("target");
        fs::create_dir_all(&usage.staging).unwrap();
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        fs::write(usage.target.join("precious"), "data").unwrap();
        // The agent and the plugin are killed; nothing is unmounted by that.
        plugin.kill().await;
        let found = looks(&id).iter().map(|look| output(look)).collect::<Vec<_>>();
        for found in &found {
            let target = usage.target.display().to_string();
            assert!(found.contains(&target), "{target} in {found}");
        }
        // What the page says to delete with leaves a mount alone.
        let removal = Command::new("rm")
            .args(["-r", "--one-file-system"])
            .arg(machine.path("").join(&directory))
            .output()
            .unwrap();
        assert!(!removal.status.success());
        assert_eq!(fs::read(usage.target.join("precious")).unwrap(), b"data");

        let plugin = machine.process(&[]).await;
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        plugin.kill().await;
        assert_eq!(output(&looks(&id)[0]), "");
        assert!(!output(&looks(&id)[1]).contains(&id));
    });
}
