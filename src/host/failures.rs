//! Conversion of the mount layer's errors into errors of the plugin.

use std::io::ErrorKind;

use super::mount::{AliasError, VisibilityError};
use crate::error::{Error, Situation, chain};
use host_fs::mount::{BindError, OpenError, TargetError, UnmountError};

impl From<TargetError> for Error {
    fn from(error: TargetError) -> Self {
        let situation = match error {
            TargetError::Invalid { .. }
            | TargetError::NoParent(_)
            | TargetError::ParentNotDirectory(_)
            | TargetError::SymbolicLink(_)
            | TargetError::UntrustedLink(_)
            | TargetError::NotDirectory(_) => Situation::InvalidArgument,
            TargetError::NotEmpty(_) | TargetError::HoldsData { .. } | TargetError::LinkOnTheWay(_) => {
                Situation::ForeignMount
            }
            _ => Situation::Internal,
        };
        Error::of(situation, &error)
    }
}

impl From<UnmountError> for Error {
    fn from(error: UnmountError) -> Self {
        let situation = match error {
            UnmountError::Foreign { .. } => Situation::ForeignMount,
            UnmountError::Busy { .. } => Situation::MountBusy,
            // The disk may recover, and the call is repeated then.
            UnmountError::Unreachable { .. } => Situation::Busy,
            _ => Situation::Internal,
        };
        Error::of(situation, &error)
    }
}

impl From<AliasError> for Error {
    fn from(error: AliasError) -> Self {
        if let AliasError::Target {
            source: TargetError::Io { source, path, .. },
            ..
        } = &error
            && source.kind() == ErrorKind::ReadOnlyFilesystem
        {
            let text = format!(
                "{}; make the file system of {} writable, or use another staging_target_path",
                chain(&error),
                path.display()
            );
            return Error::new(Situation::NotStaged, text);
        }
        let situation = match error {
            AliasError::ReadOnly(_) => Situation::NotStaged,
            AliasError::Occupied { .. }
            | AliasError::Stale { .. }
            | AliasError::Target {
                source: TargetError::HoldsData { .. } | TargetError::LinkOnTheWay(_),
                ..
            } => Situation::ForeignMount,
            AliasError::Partial(_)
            | AliasError::DeviceNode { .. }
            | AliasError::Mount { .. }
            | AliasError::Bind { .. }
            | AliasError::Open { .. }
            | AliasError::Target { .. }
            | AliasError::Unverified { .. }
            | AliasError::Table { .. } => Situation::Internal,
        };
        Error::of(situation, &error)
    }
}

impl From<BindError> for Error {
    fn from(error: BindError) -> Self {
        let situation = match error {
            BindError::Occupied { .. } => Situation::ForeignMount,
            _ => Situation::Internal,
        };
        Error::of(situation, &error)
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        let situation = match error {
            OpenError::Replaced { .. } => Situation::Busy,
            _ => Situation::Internal,
        };
        Error::of(situation, &error)
    }
}

impl From<VisibilityError> for Error {
    fn from(error: VisibilityError) -> Self {
        let situation = match error {
            VisibilityError::Hidden { .. }
            | VisibilityError::HostNotInGroup { .. }
            | VisibilityError::Unverified { .. } => Situation::NotShared,
            VisibilityError::NoHolder(_) | VisibilityError::Table { .. } => Situation::Internal,
        };
        Error::of(situation, &error)
    }
}
