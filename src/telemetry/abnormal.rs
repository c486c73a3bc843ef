//! The line of the log when a volume becomes abnormal, and the one when it is healthy again.

use std::collections::BTreeMap;
use std::fmt::Display;

use uuid::Uuid;

/// How many abnormal volumes are logged one by one.
const MOST: usize = 1000;

/// The abnormal volumes that were logged, each with its reason. Nothing is logged while a reason stays the same.
#[derive(Debug)]
pub(crate) struct AbnormalVolumes<R> {
    known: BTreeMap<Uuid, R>,
    overflowed: bool,
}

impl<R> Default for AbnormalVolumes<R> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            overflowed: false,
        }
    }
}

impl<R: PartialEq> AbnormalVolumes<R> {
    /// Notes that a volume is abnormal, and why: as a value that stays the same, and in words.
    pub(crate) fn abnormal(&mut self, dataset: Uuid, reason: R, text: impl Display) {
        if self.known.get(&dataset) == Some(&reason) {
            return;
        }
        if self.known.len() >= MOST && !self.known.contains_key(&dataset) {
            if !std::mem::replace(&mut self.overflowed, true) {
                tracing::warn!("More than {MOST} volumes are abnormal: the others are not logged one by one");
            }
            return;
        }
        self.known.insert(dataset, reason);
        tracing::warn!(volume.id = %dataset, "Volume {dataset} is abnormal: {text}");
    }

    /// Notes that a volume is healthy.
    pub(crate) fn healthy(&mut self, dataset: Uuid) {
        if self.known.remove(&dataset).is_some() {
            self.overflowed = false;
            tracing::info!(volume.id = %dataset, "Volume {dataset} is healthy again");
        }
    }

    /// Forgets the volumes for which `exists` returns false: those that no longer exist are neither.
    pub(crate) fn keep(&mut self, exists: impl Fn(Uuid) -> bool) {
        self.known.retain(|dataset, _| exists(*dataset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_ends_with_the_fault() {
        let mut volumes = AbnormalVolumes::default();
        let volume = |number: usize| Uuid::from_u128(number as u128);
        for number in 0..2 * MOST {
            volumes.abnormal(volume(number), "not backed", "no node reports it");
        }
        assert!(volumes.known.len() == MOST && volumes.overflowed);
        volumes.healthy(volume(0));
        volumes.abnormal(volume(2 * MOST), "not backed", "no node reports it");
        assert!(volumes.known.contains_key(&volume(2 * MOST)));
        volumes.keep(|_| false);
        assert!(volumes.known.is_empty());
    }
}
