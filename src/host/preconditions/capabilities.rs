//! The Linux capabilities of the process.

use rustix::thread::CapabilitySet;

/// A capability, and what it is required for.
struct Capability {
    set: CapabilitySet,
    name: &'static str,
    purpose: &'static str,
}

/// The capabilities that a node requires: found by dropping each one from a plugin that stages, publishes, restarts,
/// unpublishes and unstages a volume.
const NEEDED: [Capability; 3] = [
    Capability {
        set: CapabilitySet::SYS_ADMIN,
        name: "SYS_ADMIN",
        purpose: "mount volumes",
    },
    Capability {
        set: CapabilitySet::MKNOD,
        name: "MKNOD",
        purpose: "make the device nodes in device_dir that its mounts are named after",
    },
    Capability {
        set: CapabilitySet::DAC_OVERRIDE,
        name: "DAC_OVERRIDE",
        purpose: "mount volumes in directories of other users",
    },
];

/// The capability on which only messages depend.
const USEFUL: Capability = Capability {
    set: CapabilitySet::SYS_PTRACE,
    name: "SYS_PTRACE",
    purpose: "name the processes that keep a volume busy",
};

/// The capabilities that the process lacks, each with how to grant it.
#[derive(Debug, Default)]
pub(crate) struct MissingCapabilities {
    /// Those without which a node cannot be served.
    pub(crate) needed: Vec<String>,
    /// The one on which only messages depend.
    pub(crate) useful: Option<String>,
}

impl MissingCapabilities {
    /// Returns what this thread lacks.
    pub(crate) fn here() -> Self {
        match rustix::thread::capabilities(None) {
            Ok(sets) => {
                let missing = NEEDED
                    .iter()
                    .filter_map(|needed| describe(needed, sets.effective));
                Self {
                    needed: missing.collect(),
                    useful: describe(&USEFUL, sets.effective),
                }
            }
            Err(error) => Self {
                needed: vec![format!("cannot read which capabilities the plugin has: {error}")],
                useful: None,
            },
        }
    }
}

fn describe(wanted: &Capability, present: CapabilitySet) -> Option<String> {
    let Capability { set, name, purpose } = wanted;
    (!present.contains(*set)).then(|| {
        format!(
            "the plugin lacks the capability CAP_{name}, which is required to {purpose}: run it as root, and with that \
             (Kubernetes: securityContext.privileged: true; docker and podman: --cap-add={name}; systemd: in \
             CapabilityBoundingSet=, if that is set)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_reported_by_its_name() {
        for (index, missing) in NEEDED.iter().enumerate() {
            let present = CapabilitySet::all() - missing.set;
            let missed: Vec<_> = NEEDED.iter().map(|needed| describe(needed, present)).collect();
            for (other, text) in missed.iter().enumerate() {
                match text {
                    None => assert_ne!(other, index),
                    Some(text) => {
                        assert_eq!(other, index);
                        assert!(text.contains(&format!("CAP_{}", missing.name)), "{text}");
                    }
                }
            }
        }
    }
}
