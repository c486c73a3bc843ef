//! A plugin that is killed at every change it makes, on the node and at Flocker.
//!
//! The tests do not list those changes: they run each operation once under a seccomp filter that stops its system calls,
//! and then again for each of these calls, which is then not carried out. If a later version of the plugin makes further
//! changes, the tests kill it at those too.

mod calls;
mod disk;
mod seccomp;
mod storage;
mod tripwire;
mod walk;
mod workspace;
mod writes;

use walk::{Case, Earlier, Operation, visit_every_point};
use workspace::Lease;

use crate::support::namespace::in_own_namespace;

/// An operation on a volume that the controller has attached.
const ATTACHED: Case = Case {
    operation: Operation::Stage,
    lease: Lease::Controller,
    elsewhere: false,
    missing: &[],
    must: &[],
};
/// An operation on a volume that staging attaches itself.
const NODE_DRIVEN: Case = Case {
    lease: Lease::Staging,
    ..ATTACHED
};
/// Calls that Linux before 5.2 lacks.
const BEFORE_5_2: &[libc::c_long] = &[
    libc::SYS_fsopen,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_openat2,
];

#[test]
fn staging_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Stage,
            must: &[
                "rename state/stages/.new-* -> state/stages/RECORD",
                "sync state/stages",
                "rename state/stages/.new-* -> state/stages/RECORD",
                "sync state/stages",
                "mkdir staging/ID",
                "mknod devices/.ID",
                "rename devices/.ID -> devices/ID",
                "move_mount - -> staging/ID",
                "rename state/stages/.new-* -> state/stages/RECORD",
                "sync state/stages",
            ],
            ..ATTACHED
        })
    });
}

#[test]
fn staging_on_an_older_kernel_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Stage,
            missing: BEFORE_5_2,
            must: &["mkdir staging/ID", "mount devices/ID -> staging/ID"],
            ..ATTACHED
        })
    });
}

#[test]
fn staging_that_attaches_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Stage,
            elsewhere: true,
            must: &[
                "sync state/stages/.new-*",
                "rename state/stages/.new-* -> state/stages/RECORD",
                "sync state/stages",
                "POST lease",
                "reply to POST lease",
                "POST primary",
                "reply to POST primary",
                "move_mount - -> staging/ID",
                "sync state/stages",
            ],
            ..NODE_DRIVEN
        })
    });
}

#[test]
fn staging_that_is_refused_leaves_nothing_from_any_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Stage,
            lease: Lease::None,
            must: &[
                "rename state/stages/.new-* -> state/stages/RECORD",
                "unlink state/stages/RECORD",
                "sync state/stages",
            ],
            ..ATTACHED
        })
    });
}

#[test]
fn publishing_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Publish,
            must: &[
                "mkdir target",
                "open_tree staging/ID",
                "mount_setattr -",
                "move_mount - -> target",
            ],
            ..ATTACHED
        })
    });
}

#[test]
fn publishing_on_an_older_kernel_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Publish,
            missing: BEFORE_5_2,
            must: &[
                "mkdir target",
                "mount (bind) staging/ID -> state/mounts/.tmp*/unfinished",
                "mount (flags) - -> state/mounts/.tmp*/unfinished",
                "mount (move) state/mounts/.tmp*/unfinished -> target",
                "umount state/mounts/.tmp*",
                "rmdir state/mounts/.tmp*",
            ],
            ..ATTACHED
        })
    });
}

#[test]
fn unpublishing_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Unpublish,
            must: &["umount target", "rmdir target"],
            ..ATTACHED
        })
    });
}

#[test]
fn unstaging_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Unstage,
            must: &[
                "umount staging/ID",
                "rmdir staging/ID",
                "unlink devices/ID",
                "unlink state/stages/RECORD",
                "sync state/stages",
            ],
            ..ATTACHED
        })
    });
}

#[test]
fn unstaging_that_detaches_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Unstage,
            must: &[
                "umount staging/ID",
                "rename state/stages/.new-* -> state/stages/RECORD",
                "sync state/stages",
                "DELETE lease",
                "reply to DELETE lease",
                // What a disk may refuse comes last.
                "rmdir staging/ID",
                "unlink devices/ID",
                "unlink state/stages/RECORD",
            ],
            ..NODE_DRIVEN
        })
    });
}

#[test]
fn a_start_after_an_interrupted_staging_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Start(Earlier::Staging),
            must: &["write state/lock", "unlink state/stages/.new-*"],
            ..ATTACHED
        })
    });
}

#[test]
fn a_start_after_an_interrupted_publication_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Start(Earlier::Publishing),
            missing: BEFORE_5_2,
            must: &[
                "umount state/mounts/.tmp*/unfinished",
                "umount state/mounts/.tmp*",
                "rmdir state/mounts/.tmp*/unfinished",
                "rmdir state/mounts/.tmp*",
            ],
            ..ATTACHED
        })
    });
}

#[test]
fn a_start_with_a_lease_to_release_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Start(Earlier::Releasing),
            must: &[
                "DELETE lease",
                "reply to DELETE lease",
                "unlink state/stages/RECORD",
            ],
            ..NODE_DRIVEN
        })
    });
}

#[test]
fn a_start_after_a_reboot_converges_from_every_point_at_which_it_is_killed() {
    in_own_namespace(|| {
        visit_every_point(Case {
            operation: Operation::Start(Earlier::Reboot),
            must: &[
                "rename state/stages/.new-* -> state/stages/RECORD",
                "sync state/stages",
                "DELETE lease",
                "unlink state/stages/RECORD",
            ],
            ..NODE_DRIVEN
        })
    });
}
