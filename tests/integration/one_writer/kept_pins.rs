//! Pins that the service manager keeps while the plugin is restarted.

use rustix::io::Errno;
use uuid::Uuid;

use super::manager::{Manager, open_path};
use super::{Fixture, Task};
use crate::node::agent_unmounts;
use crate::support::csi::to_detach;
use crate::support::eventually;
use crate::support::namespace::in_own_namespace;

#[test]
fn the_agent_cannot_unmount_a_volume_while_the_plugin_is_restarted_by_a_manager_that_keeps_its_pins() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let manager = Manager::at(fixture.old.path("notify"));
        let plugin = manager.start(&fixture.old).await;
        let old = fixture.published(&plugin).await;
        let name = manager.keeps_pin_of(old.dataset()).await;
        let task = Task::start(&old.target).await;
        plugin.kill().await;

        // A forced detachment, with the plugin dead.
        fixture
            .csi()
            .try_detach(to_detach(old.dataset(), fixture.old.node()))
            .await
            .unwrap();
        let client = fixture.flocker.client().await;
        client
            .acquire_lease(old.dataset(), fixture.new.node(), None)
            .await
            .unwrap();
        client
            .move_dataset(old.dataset(), fixture.new.node())
            .await
            .unwrap();
        let flockers = fixture.flocker.mount_of(1, old.dataset());
        assert_eq!(agent_unmounts(&flockers), Err(Errno::BUSY));
        task.writes("the plugin is dead, and the manager holds the pin")
            .await;

        let plugin = manager.start(&fixture.old).await;
        plugin.logged("which holds Flocker's mount in place").await;
        assert_eq!(agent_unmounts(&flockers), Err(Errno::BUSY));
        task.writes("the pin was never released").await;
        assert_eq!((fixture.devices(), manager.names()), (1, vec![name]));

        // With the last use everything is released, and the other node gets it.
        task.end().await;
        plugin.csi.unpublish(&old).await.unwrap();
        plugin.csi.unstage(&old).await.unwrap();
        eventually("nothing is kept", async || {
            manager.names().is_empty().then_some(())
        })
        .await;
        let context = fixture.csi().attach(old.dataset(), fixture.new.node()).await;
        let new = fixture.new.usage("data", old.dataset(), &context);
        fixture.used_by_the_new_node(&new).await;
        plugin.terminate().await;
    });
}

#[test]
fn a_kept_pin_that_no_record_explains_is_closed() {
    in_own_namespace(|| async {
        let fixture = Fixture::start().await;
        let manager = Manager::at(fixture.old.path("notify"));
        let plugin = manager.start(&fixture.old).await;
        let old = fixture.published(&plugin).await;
        let name = manager.keeps_pin_of(old.dataset()).await;
        plugin.kill().await;
        let unknown = Uuid::new_v4();
        manager.add(&format!("pin-{unknown}"), open_path(&old.target));
        manager.add("pin-of-another-kind", open_path(&old.target));
        // What is kept under the name of the volume is not what its record says.
        manager.add(&name, open_path(&old.target));
        let plugin = manager.start(&fixture.old).await;
        plugin
            .logged(&format!("has kept pin-{unknown}, which is closed"))
            .await;
        plugin
            .logged("has kept pin-of-another-kind, which is closed")
            .await;
        plugin.logged(&format!("has kept {name}, which is closed")).await;
        // Flocker's mount is still the one that was pinned; it is pinned and kept again.
        eventually("only that is kept", async || {
            (manager.names() == [name.clone()]).then_some(())
        })
        .await;
        assert_eq!(
            agent_unmounts(&fixture.flocker.mount_of(1, old.dataset())),
            Err(Errno::BUSY)
        );
        let condition = plugin.csi.stats(&old).await.unwrap().volume_condition.unwrap();
        assert!(!condition.abnormal, "{}", condition.message);
        plugin.csi.unpublish(&old).await.unwrap();
        plugin.csi.unstage(&old).await.unwrap();
        eventually("nothing is kept", async || {
            manager.names().is_empty().then_some(())
        })
        .await;
        plugin.terminate().await;
    });
}
