//! The whole life of a volume.

use std::fs;
use std::io::ErrorKind;

use csi_proto::v1::volume_usage::Unit;

use super::Fixture;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;
use crate::support::scratch::loop_devices_on;

#[test]
fn a_volume_moves_with_its_data_and_leaves_nothing_behind() {
    in_own_namespace(|| async {
        let Fixture {
            mut flocker,
            machine: first,
            plugin: on_first,
        } = Fixture::start(2).await;
        let second = Machine::new(&flocker, 2);
        let on_second = second.plugin().await;

        let volume = on_first.csi.create("data").await;
        let context = on_first.csi.attach(volume, first.node()).await;
        let usage = first.usage("data", volume, &context);
        on_first.csi.stage(&usage).await.unwrap();
        on_first.csi.publish(&usage).await.unwrap();
        let text = "precious\n".repeat(100_000);
        fs::write(usage.target.join("file"), &text).unwrap();
        let stats = on_first.csi.stats(&usage).await.unwrap();
        let bytes = stats
            .usage
            .iter()
            .find(|usage| usage.unit() == Unit::Bytes)
            .unwrap();
        assert!(bytes.used >= 900_000 && bytes.used + bytes.available <= bytes.total);
        assert!(!stats.volume_condition.unwrap().abnormal);

        on_first.csi.unpublish(&usage).await.unwrap();
        assert!(!usage.target.exists());
        on_first.csi.unstage(&usage).await.unwrap();
        assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
        on_first.csi.detach(volume, first.node()).await;

        let context = on_second.csi.attach(volume, second.node()).await;
        let usage = second.usage("data", volume, &context).read_only();
        on_second.csi.stage(&usage).await.unwrap();
        on_second.csi.publish(&usage).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), text);
        let refused = fs::write(usage.target.join("more"), "").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
        assert!(only_mount_at(&usage.target).options.contains(&"ro".to_owned()));
        assert!(
            only_mount_at(&usage.alias()).options.contains(&"rw".to_owned()),
            "only the target is read-only"
        );

        on_second.csi.unpublish(&usage).await.unwrap();
        on_second.csi.unstage(&usage).await.unwrap();
        on_second.csi.detach(volume, second.node()).await;
        on_second.csi.delete(volume).await.unwrap();

        leaves_nothing(&mut flocker, &[first, second]).await;
    });
}

async fn leaves_nothing(flocker: &mut Flocker, machines: &[Machine]) {
    eventually("the volume is destroyed", async || {
        flocker.backing_files().is_empty().then_some(())
    })
    .await;
    assert_eq!(Mounts::read().below(flocker.path()), []);
    assert!(loop_devices_on(flocker.path()).is_empty());
    assert!(flocker.client().await.list_leases().await.unwrap().is_empty());
    for machine in machines {
        assert!(machine.records().is_empty(), "{:?}", machine.records());
        assert!(machine.devices().is_empty(), "{:?}", machine.devices());
    }
    flocker.stop().await;
}
