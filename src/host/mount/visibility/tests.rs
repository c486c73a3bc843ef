//! Set-ups of the host and the plugin, in real mount namespaces, each with what the host sees and what is answered.
//!
//! A thread with a mount namespace of its own stands for the host, and its mount table for that of process 1.

use std::ffi::OsStr;
use std::sync::mpsc;

use host_fs::mount::testing::{in_own_namespace, tmpfs, tmpfs_named};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, gettid, unshare_unsafe};

use super::*;

/// What `NodePublish` answers for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    Hidden,
    HostNotInGroup,
    Unverified,
}

impl Answer {
    fn of(checked: Result<(), VisibilityError>) -> Answer {
        match checked {
            Ok(()) => Answer::Accepted,
            Err(VisibilityError::Hidden { .. }) => Answer::Hidden,
            Err(VisibilityError::HostNotInGroup { .. }) => Answer::HostNotInGroup,
            Err(VisibilityError::Unverified { .. }) => Answer::Unverified,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Who is process 1 where the plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// The host's, in the initial PID namespace.
    Host,
    /// The same, and its mount table cannot be read.
    HostUnreadable,
    /// That of a machine in a container, which has a PID namespace of its own.
    Node,
    /// The plugin.
    Plugin,
}

/// What one set-up looks like, and what has to come of it.
struct Setup {
    name: &'static str,
    /// Whether the mounts of the host are shared, as systemd makes them.
    host_is_shared: bool,
    first: First,
    /// The mount namespaces inside the host's, the plugin's last; without any, it runs in that of the host.
    namespaces: &'static [fn(&Path)],
    answer: Answer,
    /// Whether what the plugin mounts at a target appears in the namespace that starts the tasks.
    seen: bool,
    /// Whether what the host mounts below `mount_root` appears in the plugin's.
    received: bool,
}

const ALL: MountPropagationFlags = MountPropagationFlags::REC;

fn all_slave(_: &Path) {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | ALL).unwrap();
}

/// As systemd does for `PrivateTmp=`, `ProtectSystem=`, `PrivateMounts=`, and as a machine in a container starts.
fn all_slave_then_shared(_: &Path) {
    all_slave(Path::new("/"));
    mount_change("/", MountPropagationFlags::SHARED | ALL).unwrap();
}

fn all_private(_: &Path) {
    mount_change("/", MountPropagationFlags::PRIVATE | ALL).unwrap();
}

/// A container's volumes: the targets' with bidirectional propagation, that of Flocker as the runtimes give it.
fn volumes_shared(scratch: &Path) {
    mount_change("/", MountPropagationFlags::PRIVATE).unwrap();
    mount_change(scratch.join("flocker"), MountPropagationFlags::DOWNSTREAM).unwrap();
}

fn volumes_slave(scratch: &Path) {
    volumes_shared(scratch);
    mount_change(scratch.join("targets"), MountPropagationFlags::DOWNSTREAM).unwrap();
}

fn volumes_private(_: &Path) {
    all_private(Path::new("/"));
}

/// As Mesos runs a plugin: a slave of the host, but for the directory in which the plugin is to mount.
fn managed_by_mesos(scratch: &Path) {
    mount_change("/", MountPropagationFlags::DOWNSTREAM).unwrap();
    mount_change(scratch.join("flocker"), MountPropagationFlags::DOWNSTREAM).unwrap();
}

/// The same on a host whose mounts are private: Mesos makes its own directory shared before.
fn managed_by_mesos_on_private_host(_: &Path) {}

fn setup(
    name: &'static str,
    first: First,
    namespaces: &'static [fn(&Path)],
    answer: Answer,
    seen: bool,
    received: bool,
) -> Setup {
    Setup {
        name,
        host_is_shared: true,
        first,
        namespaces,
        answer,
        seen,
        received,
    }
}

fn on_hosts() -> Vec<Setup> {
    use Answer::{Accepted, Hidden, HostNotInGroup, Unverified};
    use First::{Host, HostUnreadable};
    let on_private_host = |setup: Setup| Setup {
        host_is_shared: false,
        ..setup
    };
    vec![
        setup("host", Host, &[], Accepted, true, true),
        on_private_host(setup("private host", Host, &[], Accepted, true, true)),
        setup(
            "systemd's PrivateTmp=",
            Host,
            &[all_slave_then_shared],
            HostNotInGroup,
            false,
            true,
        ),
        setup(
            "PrivateTmp= twice",
            Host,
            &[all_slave_then_shared, all_slave_then_shared],
            HostNotInGroup,
            false,
            true,
        ),
        setup("rslave", Host, &[all_slave], Hidden, false, true),
        setup("private", Host, &[all_private], Hidden, false, false),
        setup(
            "managed by Mesos",
            Host,
            &[managed_by_mesos],
            Accepted,
            true,
            true,
        ),
        on_private_host(setup(
            "managed by Mesos on a private host",
            Host,
            &[managed_by_mesos_on_private_host],
            Accepted,
            true,
            false,
        )),
        setup(
            "process 1 unreadable",
            HostUnreadable,
            &[volumes_shared],
            Unverified,
            true,
            true,
        ),
    ]
}

fn in_containers() -> Vec<Setup> {
    use Answer::{Accepted, Hidden, HostNotInGroup};
    use First::{Host, Node, Plugin};
    vec![
        setup(
            "container with rshared",
            Plugin,
            &[volumes_shared],
            Accepted,
            true,
            true,
        ),
        setup(
            "the same with the host's processes",
            Host,
            &[volumes_shared],
            Accepted,
            true,
            true,
        ),
        setup(
            "container with rslave",
            Plugin,
            &[volumes_slave],
            Hidden,
            false,
            true,
        ),
        setup(
            "the same with the host's processes",
            Host,
            &[volumes_slave],
            Hidden,
            false,
            true,
        ),
        setup(
            "container with private",
            Plugin,
            &[volumes_private],
            Hidden,
            false,
            false,
        ),
        setup(
            "the same with the host's processes",
            Host,
            &[volumes_private],
            Hidden,
            false,
            false,
        ),
        // The tasks are those of the machine in the container, which is the last but one namespace.
        setup(
            "pod in kind",
            Plugin,
            &[all_slave_then_shared, volumes_shared],
            Accepted,
            true,
            true,
        ),
        setup(
            "unit in kind",
            Node,
            &[all_slave_then_shared, all_slave_then_shared],
            HostNotInGroup,
            false,
            true,
        ),
        setup(
            "unit in kind without PrivateTmp=",
            Node,
            &[all_slave_then_shared, managed_by_mesos],
            Accepted,
            true,
            true,
        ),
        // A container without a sign of the host: that its shared mounts are the host's cannot be seen from inside.
        setup(
            "container in PrivateTmp=",
            Plugin,
            &[all_slave_then_shared],
            Accepted,
            false,
            true,
        ),
    ]
}

/// Runs a body in a mount namespace inside this thread's, which exists as long as the body runs.
#[allow(
    unsafe_code,
    reason = "the descriptor table stays shared, which is what makes unshare unsafe"
)]
fn in_inner_namespace<R: Send>(prepare: fn(&Path), scratch: &Path, body: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let run = || {
            // SAFETY: no CLONE_FILES, so every descriptor stays valid in every thread.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
            prepare(scratch);
            body()
        };
        match scope.spawn(run).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn this_thread() -> String {
    format!("self/task/{}", gettid().as_raw_nonzero())
}

fn has(process: &str, source: &str) -> bool {
    let table = MountTable::read_of(process).unwrap();
    table.by_source(OsStr::new(source)).count() > 0
}

/// Runs the rest of a set-up from a namespace whose thread is the last of `outside`.
fn descend(
    setup: &Setup,
    namespaces: &[fn(&Path)],
    scratch: &Path,
    outside: &[String],
    mount_on_host: Box<dyn FnOnce() + Send>,
) {
    if let Some((prepare, inner)) = namespaces.split_first() {
        in_inner_namespace(*prepare, scratch, || {
            let outside = [outside, &[this_thread()]].concat();
            descend(setup, inner, scratch, &outside, mount_on_host);
        });
        return;
    }
    let (host, plugin) = (outside.first().unwrap(), outside.last().unwrap());
    let tasks = match setup.first {
        First::Host | First::HostUnreadable => host,
        First::Node | First::Plugin => &outside[outside.len().saturating_sub(2)],
    };
    let first = match setup.first {
        First::Host => host,
        First::HostUnreadable => "0",
        First::Node => tasks,
        First::Plugin => plugin,
    };
    let initial = matches!(setup.first, First::Host | First::HostUnreadable);
    let name = setup.name;
    let visibility = |accept_unverified| MountVisibility {
        host: HostView::detect(initial, first),
        accept_unverified,
    };
    let target = scratch.join("targets/volume");
    let answer = Answer::of(visibility(false).check(&target));
    assert_eq!(answer, setup.answer, "{name}");
    let accepting = Answer::of(visibility(true).check(&target));
    let verified = matches!(answer, Answer::HostNotInGroup | Answer::Unverified);
    assert_eq!(
        accepting,
        if verified { Answer::Accepted } else { answer },
        "{name}"
    );

    let cut_off = visibility(false).not_receiving(&scratch.join("flocker")).unwrap();
    assert_eq!(cut_off.is_none(), setup.received, "{name}: {cut_off:?}");
    // What really happens.
    tmpfs_named("of-plugin", &target);
    assert_eq!(has(tasks, "of-plugin"), setup.seen, "{name}");
    mount_on_host();
    assert_eq!(has(plugin, "of-host"), setup.received, "{name}");
}

#[test]
fn a_volume_is_published_where_the_host_sees_it_and_nowhere_else() {
    for setup in on_hosts().into_iter().chain(in_containers()) {
        in_own_namespace(move |scratch| {
            for directory in ["targets", "flocker"] {
                tmpfs(&scratch.join(directory));
            }
            if setup.host_is_shared {
                mount_change("/", MountPropagationFlags::SHARED | ALL).unwrap();
            } else {
                mount_change(scratch.join("targets"), MountPropagationFlags::SHARED).unwrap();
            }
            let (ask, asked) = mpsc::channel();
            let (done, mounted) = mpsc::channel();
            let mount_point = scratch.join("flocker/volume");
            let mounting = std::thread::spawn(move || {
                asked.recv().unwrap();
                tmpfs_named("of-host", &mount_point);
                done.send(()).unwrap();
            });
            let mount_on_host = Box::new(move || {
                ask.send(()).unwrap();
                mounted.recv().unwrap();
            });
            descend(&setup, setup.namespaces, scratch, &[this_thread()], mount_on_host);
            mounting.join().unwrap();
        });
    }
}
