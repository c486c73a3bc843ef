//! Why a volume that is staged here is abnormal: for `NodeGetVolumeStats` in words, for metrics as one of a few reasons.

use std::fmt;

use host_fs::mount::Mount;
use uuid::Uuid;

use super::Host;
use super::lease_conditions::LeaseCondition;
use super::lifecycle::Fault;
use super::mount::{FileSystemFault, UsageError, file_system_fault};

/// Why a volume is abnormal.
#[derive(Clone, Debug)]
pub(crate) enum VolumeFault {
    /// Its lease is not this node's.
    Lease(LeaseCondition),
    /// Its mounts are not as staging left them.
    Mount(Fault),
    /// Its file system or its device has a fault.
    FileSystem(FileSystemFault),
    /// Its file system does not answer.
    NotAnswering(UsageError),
}

/// Declares the reasons, with the names that they have in metrics.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $reason:ident = $name:literal,)+) => {
        /// The reason why a volume is abnormal.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum FaultReason {
            $($(#[doc = $doc])+ $reason,)+
        }

        impl FaultReason {
            /// All reasons.
            pub(crate) const ALL: &[Self] = &[$(Self::$reason),+];

            /// Returns its name.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// No node holds the lease.
    NotLeased = "not_leased",
    /// The lease cannot be read.
    LeaseUnreadable = "lease_unreadable",
    /// Another node holds the lease, and waits.
    LeaseOfOtherNode = "lease_of_other_node",
    /// Another node may have the volume, and writes were stopped here.
    WritesStopped = "writes_stopped",
    /// Another node may have the volume, and writes cannot be stopped here.
    WritesNotStopped = "writes_not_stopped",
    /// The plugin's mount no longer exists.
    Unmounted = "unmounted",
    /// This process does not hold Flocker's mount.
    Unpinned = "unpinned",
    /// The plugin's mount is of another device than Flocker's.
    OtherDevice = "other_device",
    /// Flocker's mount is no longer the visible one at its path.
    FlockerUnmounted = "flocker_unmounted",
    /// Another mount hides the plugin's.
    Hidden = "hidden",
    /// Another mount is where the plugin's belongs.
    ForeignMount = "foreign_mount",
    /// The device no longer exists.
    DeviceMissing = "device_missing",
    /// The file system was shut down.
    ShutDown = "shut_down",
    /// The file system has become read-only.
    ReadOnly = "read_only",
    /// The file system has reported errors.
    FileSystemErrors = "file_system_errors",
    /// The file system does not answer.
    NotAnswering = "not_answering",
}

impl VolumeFault {
    /// Returns its reason.
    pub(crate) fn reason(&self) -> FaultReason {
        match self {
            Self::Lease(LeaseCondition::NotLeased) => FaultReason::NotLeased,
            Self::Lease(LeaseCondition::Unreadable) => FaultReason::LeaseUnreadable,
            Self::Lease(LeaseCondition::HeldBy(_)) => FaultReason::LeaseOfOtherNode,
            Self::Lease(LeaseCondition::Stopped(_)) => FaultReason::WritesStopped,
            Self::Lease(LeaseCondition::Unstoppable(_)) => FaultReason::WritesNotStopped,
            Self::Mount(Fault::Unmounted) => FaultReason::Unmounted,
            Self::Mount(Fault::Unpinned) => FaultReason::Unpinned,
            Self::Mount(Fault::OtherDevice { .. }) => FaultReason::OtherDevice,
            Self::Mount(Fault::FlockerUnmounted { .. }) => FaultReason::FlockerUnmounted,
            Self::Mount(Fault::Hidden { .. }) => FaultReason::Hidden,
            Self::Mount(Fault::Foreign { .. }) => FaultReason::ForeignMount,
            Self::FileSystem(FileSystemFault::DeviceMissing(_)) => FaultReason::DeviceMissing,
            Self::FileSystem(FileSystemFault::ShutDown) => FaultReason::ShutDown,
            Self::FileSystem(FileSystemFault::ReadOnly) => FaultReason::ReadOnly,
            Self::FileSystem(FileSystemFault::Errors { .. }) => FaultReason::FileSystemErrors,
            Self::NotAnswering(_) => FaultReason::NotAnswering,
        }
    }
}

impl fmt::Display for VolumeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(condition) => condition.fmt(f),
            Self::Mount(fault) => fault.fmt(f),
            Self::FileSystem(fault) => fault.fmt(f),
            Self::NotAnswering(error) => error.fmt(f),
        }
    }
}

impl Host {
    /// Returns the fault of a staged volume, given that of its mounts, and the plugin's mount of it if it has one.
    pub(super) fn volume_fault(
        &self,
        dataset: Uuid,
        of_mounts: Option<Fault>,
        mount: Option<&Mount>,
    ) -> Option<VolumeFault> {
        let lease = self.lease_condition(dataset);
        // What is wrong with the mounts follows from a lease of another node, and is not repaired by staging again.
        lease
            .filter(|lease| lease.excludes_publication())
            .map(VolumeFault::Lease)
            .or_else(|| of_mounts.map(VolumeFault::Mount))
            .or_else(|| mount.and_then(file_system_fault).map(VolumeFault::FileSystem))
            .or_else(|| lease.map(VolumeFault::Lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_on_the_page_of_metrics() {
        let page = include_str!("../../docs/metrics.md");
        let mut rows = page.lines();
        let row = rows.find(|line| line.starts_with("| `reason` |")).unwrap();
        for reason in FaultReason::ALL {
            assert!(row.contains(&format!("`{}`", reason.name())), "{}", reason.name());
        }
        assert_eq!(
            row.matches('`').count() / 2 - 1,
            FaultReason::ALL.len(),
            "no other one"
        );
    }
}
