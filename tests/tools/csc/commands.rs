//! The commands of csc, the same in both builds: their names, arguments and flags.
//!
//! Flags that only make csc stricter (`--with-requires-…`), and `--format`, are left out.

use crate::syntax::{Flag, Value};

/// The RPC that a command calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rpc {
    PluginInfo,
    PluginCapabilities,
    Probe,
    CreateVolume,
    DeleteVolume,
    ControllerPublish,
    ControllerUnpublish,
    ListVolumes,
    Validate,
    Capacity,
    ControllerCapabilities,
    CreateSnapshot,
    DeleteSnapshot,
    ListSnapshots,
    ControllerExpand,
    NodeInfo,
    NodeCapabilities,
    Stage,
    Unstage,
    NodePublish,
    NodeUnpublish,
    Stats,
    NodeExpand,
}

/// The operands of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operands {
    None,
    /// One or more, each a call of its own.
    Some,
    VolumeAndPath,
}

/// A command of a group.
pub(crate) struct Command {
    group: &'static [&'static str],
    names: &'static [&'static str],
    pub(crate) rpc: Rpc,
    pub(crate) operands: Operands,
    pub(crate) flags: &'static [Flag],
}

impl Command {
    /// Finds a command by one of its names.
    pub(crate) fn find(group: &str, name: &str) -> Result<&'static Self, String> {
        let mut of_group = COMMANDS.iter().filter(|it| it.group.contains(&group)).peekable();
        if of_group.peek().is_none() {
            return Err(format!("unknown command {group:?} for \"csc\""));
        }
        of_group
            .find(|it| it.names.contains(&name))
            .ok_or_else(|| format!("unknown command {name:?} for \"csc {group}\""))
    }
}

const fn flag(name: &'static str, value: Value) -> Flag {
    Flag {
        name,
        letter: None,
        value,
    }
}

const fn short(letter: char, name: &'static str, value: Value) -> Flag {
    Flag {
        name,
        letter: Some(letter),
        value,
    }
}

/// The flags that every command takes.
pub(crate) const GLOBAL_FLAGS: &[Flag] = &[
    short('e', "endpoint", Value::Text),
    short('t', "timeout", Value::Duration),
    short('l', "log-level", Value::Text),
    short('i', "insecure", Value::Switch),
    short('m', "metadata", Value::Pairs),
    flag("with-request-logging", Value::Switch),
    flag("with-response-logging", Value::Switch),
    flag("with-spec-validation", Value::Switch),
];

const CAPABILITY: Flag = flag("cap", Value::Capability);
const PARAMETERS: Flag = flag("params", Value::Pairs);
const REQUIRED: Flag = flag("req-bytes", Value::Number);
const LIMIT: Flag = flag("lim-bytes", Value::Number);
const VOLUME_CONTEXT: Flag = flag("vol-context", Value::Pairs);
const PUBLISH_CONTEXT: Flag = flag("pub-context", Value::Pairs);
const NODE: Flag = flag("node-id", Value::Text);
const READ_ONLY: Flag = flag("read-only", Value::Switch);
const STAGING: Flag = flag("staging-target-path", Value::Text);
const TARGET: Flag = flag("target-path", Value::Text);
const MAX_ENTRIES: Flag = flag("max-entries", Value::Number);
const TOKEN: Flag = flag("starting-token", Value::Text);
const PAGING: Flag = flag("paging", Value::Switch);
const SOURCE: Flag = flag("source-volume", Value::Text);

const IDENTITY: &[&str] = &["identity", "i", "ident"];
const CONTROLLER: &[&str] = &["controller", "c"];
const NODES: &[&str] = &["node", "n"];

macro_rules! commands {
    ($($group:ident $names:expr => $rpc:ident $operands:ident [$($flag:expr),*];)*) => {
        /// All commands.
        pub(crate) const COMMANDS: &[Command] = &[$(Command {
            group: $group,
            names: &$names,
            rpc: Rpc::$rpc,
            operands: Operands::$operands,
            flags: &[$($flag),*],
        }),*];
    };
}

commands! {
    IDENTITY ["plugin-info", "info"] => PluginInfo None [];
    IDENTITY ["plugin-capabilities", "caps"] => PluginCapabilities None [];
    IDENTITY ["probe"] => Probe None [];
    CONTROLLER ["create-volume", "n", "c", "new", "create"] => CreateVolume Some
        [CAPABILITY, PARAMETERS, REQUIRED, LIMIT, SOURCE, flag("source-snapshot", Value::Text)];
    CONTROLLER ["delete-volume", "d", "rm", "del", "delete"] => DeleteVolume Some [];
    CONTROLLER ["publish", "attach"] => ControllerPublish Some [NODE, READ_ONLY, VOLUME_CONTEXT, CAPABILITY];
    CONTROLLER ["unpublish", "detach"] => ControllerUnpublish Some [NODE];
    CONTROLLER ["list-volumes", "ls", "list", "volumes"] => ListVolumes None [MAX_ENTRIES, TOKEN, PAGING];
    CONTROLLER ["validate-volume-capabilities", "validate"] => Validate Some
        [CAPABILITY, PARAMETERS, VOLUME_CONTEXT];
    CONTROLLER ["get-capacity", "capacity"] => Capacity None [CAPABILITY, PARAMETERS];
    CONTROLLER ["get-capabilities", "capabilities"] => ControllerCapabilities None [];
    CONTROLLER ["create-snapshot", "s", "snap"] => CreateSnapshot Some [SOURCE, PARAMETERS];
    CONTROLLER ["delete-snapshot", "ds", "delsnap"] => DeleteSnapshot Some [];
    CONTROLLER ["list-snapshots", "sl", "snap-list", "snapshots"] => ListSnapshots None
        [MAX_ENTRIES, TOKEN, PAGING, flag("source-volume-id", Value::Text), flag("snapshot-id", Value::Text)];
    CONTROLLER ["expand-volume", "exp", "expand"] => ControllerExpand Some [REQUIRED, LIMIT, CAPABILITY];
    NODES ["get-info", "info"] => NodeInfo None [];
    NODES ["get-capabilities", "capabilities"] => NodeCapabilities None [];
    NODES ["stage"] => Stage Some [STAGING, CAPABILITY, VOLUME_CONTEXT, PUBLISH_CONTEXT];
    NODES ["unstage"] => Unstage Some [STAGING];
    NODES ["publish", "mnt", "mount"] => NodePublish Some
        [STAGING, TARGET, READ_ONLY, CAPABILITY, VOLUME_CONTEXT, PUBLISH_CONTEXT];
    NODES ["unpublish", "umount", "unmount"] => NodeUnpublish Some [TARGET];
    NODES ["stats"] => Stats Some [];
    NODES ["expand-volume", "exp", "expand"] => NodeExpand VolumeAndPath [REQUIRED, LIMIT, STAGING];
}
