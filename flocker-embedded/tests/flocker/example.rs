//! The example of the crate does what it describes.

use crate::support::{isolated, loop_devices, mount_points};

#[allow(dead_code, reason = "the entry point of the example is not used here")]
#[path = "../../examples/move_a_dataset.rs"]
mod move_a_dataset;

#[test]
fn the_example_moves_a_dataset_with_its_data_and_leaves_nothing_attached() {
    isolated(async |directory| {
        let content = move_a_dataset::run(&directory).await.unwrap();
        assert_eq!(content, "hello from node 1");
        assert!(loop_devices(&directory).is_empty());
        assert!(!mount_points().iter().any(|path| path.starts_with(&directory)));
    });
}
