//! A disk without a free block.

use std::fs::{File, OpenOptions};
use std::io::Write;

use host_fs::mount::testing::in_own_namespace;
use rustix::fs::statvfs;
use rustix::mount::{MountFlags, mount};

use super::*;

/// Runs a test with a store on a disk of its own.
fn on_small_disk(test: impl FnOnce(&Path, &Path) + Send + 'static) {
    in_own_namespace(|scratch| {
        let disk = scratch.join("disk");
        fs::create_dir(&disk).unwrap();
        mount("disk", &disk, "tmpfs", MountFlags::empty(), Some(c"size=16m")).unwrap();
        test(&disk, &disk.join("data"));
    });
}

/// Takes all free blocks of a disk.
fn fill(disk: &Path) {
    let mut filler = OpenOptions::new()
        .create(true)
        .append(true)
        .open(disk.join("filler"))
        .unwrap();
    let error = loop {
        if let Err(error) = filler.write_all(&[1; 4096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
    let free = statvfs(disk).unwrap().f_bfree;
    assert_eq!(free, 0, "blocks are free on {}", disk.display());
}

#[test]
fn what_exists_can_be_deleted_on_a_full_disk_and_nothing_new_is_created() {
    on_small_disk(|disk, data| {
        let store = open(data);
        let ids: Vec<_> = (0..200).map(|_| create(&store)).collect();
        // As after a change that needed a part of it.
        let ballast = File::options().write(true).open(data.join("ballast")).unwrap();
        ballast.set_len(7 << 19).unwrap();
        fill(disk);
        let try_create = || {
            store.update(Purpose::Growth, |transaction| {
                transaction
                    .put_dataset(Uuid::new_v4(), dataset(&[]))
                    .map(Ok::<_, ()>)
            })
        };
        for id in &ids {
            // Other writers take every block that becomes free.
            fill(disk);
            let error = try_create().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
            try_delete(&store, *id).unwrap();
            assert!(store.snapshot().configuration.datasets[id].deleted);
        }
        let kept = ballast.metadata().unwrap().len();
        assert!(
            kept >= 5 << 19,
            "{kept}: blocks were needed that the database could have had before"
        );
        let before = (store.snapshot().configuration.clone(), tag(&store));
        drop(store);
        let store = open(data);
        assert_eq!((store.snapshot().configuration.clone(), tag(&store)), before);
        assert_eq!(store.snapshot().datasets, ids.len() as u64);

        fs::remove_file(disk.join("filler")).unwrap();
        create(&store);
        let ballast = data.join("ballast").metadata().unwrap();
        assert_eq!(ballast.len(), 4 << 20, "it is whole again");
    });
}

#[test]
fn a_start_on_a_full_disk_succeeds() {
    on_small_disk(|disk, data| {
        let store = open(data);
        let id = create(&store);
        drop(store);
        fill(disk);
        let store = open(data);
        try_delete(&store, id).unwrap();
    });
}

#[test]
fn a_start_after_a_crash_on_a_full_disk_succeeds() {
    on_small_disk(|disk, data| {
        let crashed = disk.join("crashed");
        fs::create_dir(&crashed).unwrap();
        let store = open(data);
        let id = create(&store);
        // As it is on disk while it is open.
        for file in ["state.json", "state.redb", "ballast"] {
            fs::copy(data.join(file), crashed.join(file)).unwrap();
        }
        drop(DataDir::claim(&crashed).unwrap());
        fill(disk);
        let store = open(&crashed);
        try_delete(&store, id).unwrap();
        assert!(store.snapshot().configuration.datasets[&id].deleted);
    });
}

#[test]
fn an_upgrade_that_finds_the_disk_full_leaves_the_earlier_state() {
    on_small_disk(|disk, data| {
        fs::create_dir(data).unwrap();
        let old = serde_json::json!({
            "cluster": Uuid::nil(), "nodes": [Uuid::nil()], "attachments": {},
            "configuration": {"datasets": {}, "leases": {}, "registered": []},
        });
        fs::write(data.join("state.json"), old.to_string()).unwrap();
        drop(DataDir::claim(data).unwrap());
        fill(disk);
        let refused = try_open(data).err().unwrap();
        assert!(
            crate::error::chain(&refused).contains("No space left"),
            "{refused}"
        );
        assert_eq!(
            fs::read(data.join("state.json")).unwrap(),
            old.to_string().as_bytes()
        );
        File::options()
            .write(true)
            .truncate(true)
            .open(disk.join("filler"))
            .unwrap();
        assert_eq!(open(data).nodes().len(), 2);
    });
}
