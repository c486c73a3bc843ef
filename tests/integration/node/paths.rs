//! Paths at which no volume may be mounted, and what is below a mount.

use host_fs::mount::testing::unmount;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::mount_bind;
use tonic::Code;

use super::{Fixture, assert_refused};
use crate::support::csi::Usage;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// Writes a file into a directory below what is mounted on it, as it was there before an earlier release mounted.
pub(crate) fn hide_below(target: &Path, content: &str) {
    let view = target.with_file_name("view");
    fs::create_dir(&view).unwrap();
    // A bind that is not recursive shows what the mount hides.
    mount_bind(target.parent().unwrap(), &view).unwrap();
    fs::write(view.join(target.file_name().unwrap()).join("file"), content).unwrap();
    unmount(&view);
    fs::remove_dir(&view).unwrap();
}

#[test]
fn a_target_that_holds_data_is_refused_before_anything_is_mounted() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.staged("data").await);
        fs::create_dir(&usage.target).unwrap();
        for name in ["a", "b", "c", "d"] {
            fs::write(usage.target.join(name), "precious").unwrap();
        }
        assert_refused(
            csi.publish(&usage).await,
            Code::FailedPrecondition,
            &[
                &usage.volume_id,
                usage.target.to_str().unwrap(),
                "and more",
                "move it elsewhere",
            ],
        );
        assert_eq!(Mounts::read().at(&usage.target), []);
        for name in ["a", "b", "c", "d"] {
            fs::remove_file(usage.target.join(name)).unwrap();
        }
        csi.publish(&usage).await.unwrap();
        only_mount_at(&usage.target);
    });
}

#[test]
fn files_that_a_mount_had_hidden_are_kept_beside_the_target_and_keep_no_volume() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let volume = fixture.csi().create("data").await;
        // The node takes the lease, and has to give it back.
        let usage = fixture
            .machine
            .usage("data", volume, &std::collections::HashMap::default());
        let csi = fixture.csi();
        csi.stage(&usage).await.unwrap();
        for kept in ["data.kept-1", "data.kept-2"] {
            csi.publish(&usage).await.unwrap();
            hide_below(&usage.target, kept);
            csi.unpublish(&usage).await.unwrap();
            csi.unpublish(&usage).await.unwrap();
            assert!(!usage.target.exists());
            let kept_at = usage.target.with_file_name(kept).join("file");
            assert_eq!(fs::read_to_string(kept_at).unwrap(), kept);
        }
        csi.unstage(&usage).await.unwrap();
        assert_eq!(fixture.flocker.leaseholder(volume).await, None);
        assert!(fixture.machine.records().is_empty());
    });
}

#[test]
fn files_in_the_directory_of_the_plugins_mount_are_neither_hidden_nor_removed() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.attached("data").await);
        fs::create_dir(usage.alias()).unwrap();
        fs::write(usage.alias().join("file"), "precious").unwrap();
        assert_refused(
            csi.stage(&usage).await,
            Code::FailedPrecondition,
            &[&usage.volume_id, usage.alias().to_str().unwrap(), "\"file\""],
        );
        assert!(fixture.machine.records().is_empty());
        csi.unstage(&usage).await.unwrap();
        assert_eq!(
            fs::read_to_string(usage.alias().join("file")).unwrap(),
            "precious"
        );
        fs::remove_file(usage.alias().join("file")).unwrap();
        csi.stage(&usage).await.unwrap();
        // What was hidden anyway does not keep the volume.
        hide_below(&usage.alias(), "precious");
        csi.unstage(&usage).await.unwrap();
        assert_eq!(
            fs::read_to_string(usage.alias().join("file")).unwrap(),
            "precious"
        );
        assert!(fixture.machine.records().is_empty());
    });
}

/// The directories in which nothing may be mounted, with what a refusal calls each.
fn own_directories(fixture: &Fixture) -> [(PathBuf, &'static str); 3] {
    let config = &fixture.machine.config;
    [
        (config.node.state_dir.clone(), "state_dir"),
        (config.plugin.device_dir.clone(), "device_dir"),
        (config.node.mount_root.clone(), "mount_root"),
    ]
}

#[test]
fn nothing_is_mounted_in_or_over_the_plugins_own_directories_or_removed_from_them() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.staged("data").await);
        let machine = usage.target.parent().unwrap().parent().unwrap().to_owned();
        for (index, (directory, name)) in own_directories(&fixture).into_iter().enumerate() {
            let below = directory.join("below");
            fs::create_dir_all(&below).unwrap();
            let link = machine.join(format!("link-{index}"));
            symlink(&directory, &link).unwrap();
            for path in [&directory, &below, &link.join("below"), &below.join("far/target")] {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                let target = Usage {
                    target: path.clone(),
                    ..usage.clone()
                };
                let staging = Usage {
                    staging: path.clone(),
                    ..usage.clone()
                };
                for answer in [
                    csi.publish(&target).await,
                    csi.unpublish(&target).await,
                    csi.unstage(&staging).await,
                ] {
                    assert_refused(answer, Code::InvalidArgument, &[name, path.to_str().unwrap()]);
                }
                fs::create_dir_all(path).unwrap();
                assert_refused(csi.stage(&staging).await, Code::InvalidArgument, &[name]);
                assert!(path.is_dir());
            }
            assert_eq!(Mounts::read().below(&below), []);
        }
        // The socket's directory, which is not empty, and those above must stay visible; below it there is nothing to hide.
        let above = Usage {
            target: machine.clone(),
            ..usage.clone()
        };
        for answer in [csi.publish(&above).await, csi.unpublish(&above).await] {
            assert_refused(
                answer,
                Code::InvalidArgument,
                &["target_path", machine.to_str().unwrap()],
            );
        }
        csi.publish(&usage).await.unwrap();
        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
    });
}

#[test]
fn no_target_is_where_a_volume_is_staged() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.staged("data").await);
        let other = fixture.staged("other").await;
        let aliases = [
            usage.alias(),
            usage.alias().join("below"),
            other.alias(),
            other.alias().join("below"),
        ];
        for path in aliases {
            let target = Usage {
                target: path.clone(),
                ..usage.clone()
            };
            assert_refused(
                csi.publish(&target).await,
                Code::InvalidArgument,
                &["target_path", path.to_str().unwrap()],
            );
            let refused = csi.unpublish(&target).await.unwrap_err();
            assert!(
                [Code::InvalidArgument, Code::FailedPrecondition].contains(&refused.code()),
                "{refused}"
            );
            let staging = Usage {
                staging: path,
                ..usage.clone()
            };
            fs::create_dir_all(&staging.staging).unwrap();
            assert_refused(
                csi.stage(&staging).await,
                Code::InvalidArgument,
                &["staging_target_path"],
            );
        }
        for staged in [&usage, &other] {
            only_mount_at(&staged.alias());
            csi.unstage(staged).await.unwrap();
        }
    });
}

#[test]
fn a_link_that_another_user_could_replace_is_not_followed() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        let theirs = fixture.machine.path("theirs");
        fs::create_dir(&theirs).unwrap();
        symlink(usage.target.parent().unwrap(), theirs.join("targets")).unwrap();
        symlink(usage.staging.parent().unwrap(), theirs.join("staging")).unwrap();
        let linked = Usage {
            staging: theirs.join("staging/data"),
            target: theirs.join("targets/data"),
            ..usage.clone()
        };
        // Links in a directory of root's are followed, as on a host whose kubelet has a linked directory.
        csi.stage(&linked).await.unwrap();
        csi.publish(&linked).await.unwrap();
        only_mount_at(&usage.target);
        chown(&theirs, Some(65534), None).unwrap();
        for answer in [
            csi.stage(&linked).await,
            csi.publish(&linked).await,
            csi.unpublish(&linked).await,
            csi.unstage(&linked).await,
        ] {
            assert_refused(
                answer,
                Code::InvalidArgument,
                &["symbolic link", "users other than root"],
            );
        }
        only_mount_at(&usage.target);
        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
    });
}

/// Returns a path of this length below a directory.
fn path_of_length(directory: &Path, length: usize) -> PathBuf {
    let mut path = directory.to_owned();
    while path.as_os_str().len() + 201 + 2 < length {
        path.push("n".repeat(200));
    }
    let rest = length - path.as_os_str().len() - 1;
    path.push("n".repeat(rest));
    assert_eq!(path.as_os_str().len(), length);
    path
}

/// Makes a directory whose path may be longer than a system call takes.
fn make(path: &Path, root: &Path) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let mut directory = openat(CWD, root, OFlags::PATH, Mode::empty()).unwrap();
    for name in path.strip_prefix(root).unwrap() {
        mkdirat(&directory, name, Mode::from_raw_mode(0o755)).ok();
        directory = openat(&directory, name, OFlags::PATH, Mode::empty()).unwrap();
    }
}

#[test]
fn a_path_that_is_too_long_is_an_invalid_argument_of_every_call() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.attached("data").await);
        let root = fixture.machine.path("long");
        fs::create_dir(&root).unwrap();
        // 4,059 bytes leave no room for the name of the plugin's mount.
        for length in [4059, 4080, 4095, 4096, 5000] {
            let path = path_of_length(&root, length);
            make(&path, &root);
            let staging = Usage {
                staging: path.clone(),
                ..usage.clone()
            };
            let mut answers = vec![
                csi.stage(&staging).await,
                csi.publish(&staging).await,
                csi.unstage(&staging).await,
            ];
            if length > 4095 {
                let target = Usage {
                    target: path,
                    ..usage.clone()
                };
                answers.extend([csi.publish(&target).await, csi.unpublish(&target).await]);
                answers.push(csi.stats(&target).await.map(drop));
            }
            for answer in answers {
                assert_refused(answer, Code::InvalidArgument, &["4095 bytes", "_path"]);
            }
        }
        assert!(fixture.machine.records().is_empty());
        // The longest paths there can be are served.
        let longest = Usage {
            staging: path_of_length(&root, 4058),
            target: path_of_length(&root, 4095),
            ..usage.clone()
        };
        make(&longest.staging, &root);
        csi.stage(&longest).await.unwrap();
        csi.publish(&longest).await.unwrap();
        csi.unpublish(&longest).await.unwrap();
        csi.unstage(&longest).await.unwrap();
        // A link can make a path longer than it is spelled.
        let deep = path_of_length(&root, 4080);
        symlink(deep.parent().unwrap(), root.join("link")).unwrap();
        let linked = Usage {
            staging: root.join("link").join(deep.file_name().unwrap()),
            ..usage.clone()
        };
        assert_refused(csi.stage(&linked).await, Code::InvalidArgument, &["4095 bytes"]);
        assert!(fixture.machine.records().is_empty());
        // The reason stands at the end of a message about a long path.
        let missing = Usage {
            target: path_of_length(&root, 4000).join("missing/target"),
            ..usage
        };
        csi.stage(&missing).await.unwrap();
        assert_refused(
            csi.publish(&missing).await,
            Code::InvalidArgument,
            &["does not exist; the orchestrator must make it", "[…]"],
        );
    });
}
