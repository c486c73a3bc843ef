//! Shipped tasks, as an agent of Mesos runs them, with a plugin started as shipped.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use csi_proto::v1::VolumeCapability;
use flocker_client::{Dataset, NewDataset};

use super::commands::start;
use super::tree::{Parsed, Tree};
use crate::support::csi::{Csi, Usage};
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

const MANAGED: &str = "deploy/mesos/csi-plugins-managed/flocker.json";
const UNIT: &str = "deploy/mesos/systemd/flocker-csi-mesos.service";

/// A volume as a task names it.
type Named = (String, HashMap<String, String>, VolumeCapability);

/// Returns the volume of a task of `mesos-execute`.
fn of_mesos(parsed: &Parsed, file: &str) -> Named {
    let (_, volumes) = parsed
        .tasks
        .iter()
        .find(|(name, _)| name.ends_with(file))
        .unwrap();
    let volume = &volumes[0].source.csi_volume.static_provisioning;
    (
        volume.volume_id.clone(),
        volume.volume_context.clone(),
        volume.volume_capability.to_csi().0,
    )
}

/// Returns the volume of an application of Marathon, as Marathon passes it to Mesos.
fn of_marathon(parsed: &Parsed, file: &str) -> Named {
    let (_, app) = parsed.apps.iter().find(|(name, _)| name.ends_with(file)).unwrap();
    let volume = app.external().next().unwrap();
    (
        volume.name.clone(),
        volume.options.volume_context.clone(),
        volume.options.capability.to_csi().0,
    )
}

/// Runs a task that reads the content of its volume, and appends a line; an agent makes no other calls.
async fn run(csi: &Csi, flocker: &Flocker, number: usize, named: Named, line: &str) -> String {
    let (volume_id, volume_context, capability) = named;
    let mounts = flocker
        .path()
        .join(format!("agent-{number}/mounts"))
        .join(&volume_id);
    let usage = Usage {
        volume_id,
        volume_context,
        publish_context: HashMap::new(),
        staging: mounts.join("staging"),
        target: mounts.join("target"),
        capability,
        readonly: false,
    };
    fs::create_dir_all(&usage.staging).unwrap();
    csi.stage(&usage).await.unwrap();
    csi.publish(&usage).await.unwrap();
    let log = usage.target.join("log");
    let before = fs::read_to_string(&log).unwrap_or_default();
    fs::write(&log, format!("{before}{line}\n")).unwrap();
    csi.unpublish(&usage).await.unwrap();
    csi.unstage(&usage).await.unwrap();
    // As Mesos does, which would delete the volume's content if the volume were still mounted.
    fs::remove_dir_all(&mounts).unwrap();
    before
}

async fn datasets(flocker: &Flocker) -> Vec<Dataset> {
    flocker.datasets().await
}

#[test]
fn the_tasks_for_mesos_and_marathon_share_a_volume_by_its_flocker_id_that_the_first_makes() {
    in_own_namespace(|| async {
        let (parsed, _) = Tree::shipped().parse();
        let flocker = Flocker::start(2).await;
        let managed = start(&parsed, MANAGED, &flocker, 1).await;
        let unmanaged = start(&parsed, UNIT, &flocker, 2).await;

        let task = of_mesos(&parsed, "flocker-id.json");
        assert_eq!(run(&managed.csi, &flocker, 1, task, "of Mesos").await, "");
        let app = of_marathon(&parsed, "flocker-id.json");
        assert_eq!(
            run(&unmanaged.csi, &flocker, 2, app, "of Marathon").await,
            "of Mesos\n"
        );

        let made = datasets(&flocker).await;
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].maximum_size, Some(10 << 30));
        for (key, value) in [
            ("FLOCKER_ID", "orders-db"),
            ("name", "orders-db"),
            ("clusterhq:flocker:profile", "gold"),
        ] {
            assert_eq!(made[0].metadata[key], value);
        }
    });
}

#[test]
fn a_dataset_of_the_old_isolator_is_used_by_the_tasks_as_it_is() {
    in_own_namespace(|| async {
        let (parsed, _) = Tree::shipped().parse();
        let flocker = Flocker::start(2).await;
        // The isolator needs only its key; the size is for this machine.
        let old = NewDataset {
            dataset_id: None,
            primary: flocker.node(1),
            maximum_size: Some(64 << 20),
            metadata: BTreeMap::from([("FLOCKER_ID".to_owned(), "orders-db".to_owned())]),
        };
        let old = flocker.client().await.create_dataset(&old).await.unwrap();
        flocker.reports(1, old.dataset_id).await;
        fs::write(
            flocker.mount_of(1, old.dataset_id).join("log"),
            "of the isolator\n",
        )
        .unwrap();

        let plugin = start(&parsed, MANAGED, &flocker, 2).await;
        let app = of_marathon(&parsed, "flocker-id.json");
        assert_eq!(
            run(&plugin.csi, &flocker, 2, app, "of Marathon").await,
            "of the isolator\n"
        );
        // By the id, as the other files name it.
        let (_, context, capability) = of_mesos(&parsed, "dataset.json");
        let by_id = (old.dataset_id.to_string(), context, capability);
        let before = run(&plugin.csi, &flocker, 2, by_id, "of Mesos").await;
        assert_eq!(before, "of the isolator\nof Marathon\n");
        assert_eq!(datasets(&flocker).await.len(), 1);
    });
}
