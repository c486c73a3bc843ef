//! What the program decides, in tables: the checker asks millions of times.

use std::collections::HashMap;
use std::sync::LazyLock;

use flocker_csi::decisions::{self, Hold, Holder, LeaseVerdict, Next, Primary, Recorded, Volume};
use host_fs::mount::{Mount, MountTable};

use crate::state::Alias;

/// A volume as its plugin sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) recorded: Recorded,
    pub(crate) takes_lease: bool,
    pub(crate) alias: Alias,
    pub(crate) pinned: bool,
    pub(crate) published: bool,
}

/// What the program does about a volume, by goal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextSteps {
    pub(crate) stage: Next,
    pub(crate) publish: Next,
    pub(crate) unstage: Next,
    pub(crate) undo_stage: Next,
    pub(crate) restore: Next,
}

static NEXT: LazyLock<[NextSteps; 120]> = LazyLock::new(|| {
    let steps = |number: usize| {
        let seen = seen(number);
        let volume = Volume {
            recorded: seen.recorded,
            takes_lease: seen.takes_lease,
            mounted: match seen.alias {
                Alias::None => None,
                Alias::Current => Some(mount(1)),
                Alias::Detached => Some(mount(2)),
            },
            pinned: seen.pinned.then(|| mount(1)),
            published: seen.published,
        };
        NextSteps {
            stage: volume.stage(),
            publish: volume.publish(),
            unstage: volume.unstage(),
            undo_stage: volume.undo_stage(),
            restore: volume.restore(),
        }
    };
    std::array::from_fn(steps)
});

/// What the watch decides from: holder, primary, hold, whether staging took the lease, whether the volume is used.
type OfLease = (Holder, Primary, Hold, bool, bool);

static VERDICTS: LazyLock<HashMap<OfLease, LeaseVerdict>> = LazyLock::new(|| {
    let mut verdicts = HashMap::new();
    for holder in [Holder::ThisNode, Holder::NoNode, Holder::AnotherNode] {
        for primary in [Primary::ThisNode, Primary::AnotherNode, Primary::NotRead] {
            for hold in [Hold::Pinned, Hold::Lost, Hold::Replaced, Hold::Stopped] {
                for bits in 0..4 {
                    let (takes_lease, used) = (bits & 1 != 0, bits & 2 != 0);
                    let verdict = decisions::about_lease(holder, primary, takes_lease, used, hold);
                    verdicts.insert((holder, primary, hold, takes_lease, used), verdict);
                }
            }
        }
    }
    verdicts
});

/// Returns what the program does about a volume.
pub(crate) fn next(seen: Seen) -> NextSteps {
    NEXT[number(seen)]
}

/// Returns what the watch of the leases does about a volume.
pub(crate) fn about_lease(
    holder: Holder,
    primary: Primary,
    takes_lease: bool,
    used: bool,
    hold: Hold,
) -> LeaseVerdict {
    VERDICTS[&(holder, primary, hold, takes_lease, used)]
}

const RECORDED: [Recorded; 5] = [
    Recorded::Nothing,
    Recorded::Staging,
    Recorded::Staged,
    Recorded::ReleasePending,
    Recorded::OfAnotherBoot,
];
const ALIASES: [Alias; 3] = [Alias::None, Alias::Current, Alias::Detached];

fn number(seen: Seen) -> usize {
    let bits = [seen.takes_lease, seen.pinned, seen.published];
    let bits = bits
        .into_iter()
        .fold(0, |number, bit| number * 2 + usize::from(bit));
    (seen.recorded as usize * ALIASES.len() + seen.alias as usize) * 8 + bits
}

fn seen(number: usize) -> Seen {
    let bit = |bit: usize| number & 1 << bit != 0;
    Seen {
        recorded: RECORDED[number / 8 / ALIASES.len()],
        alias: ALIASES[number / 8 % ALIASES.len()],
        takes_lease: bit(2),
        pinned: bit(1),
        published: bit(0),
    }
}

/// A mount of a loop device.
fn mount(minor: u32) -> Mount {
    let line = format!("1 0 7:{minor} / /mount rw - ext4 /dev/loop{minor} rw\n");
    MountTable::parse(line.as_bytes())
        .expect("a line of a mount table")
        .mounts()[0]
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_volumes_correspond() {
        for each in 0..120 {
            assert_eq!(number(seen(each)), each);
        }
    }
}
