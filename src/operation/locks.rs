//! One lock for each volume.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use uuid::Uuid;

use super::FEW;
use super::context::Context;
use super::phase::Phase;
use crate::error::Result;

/// Serialises the steps that change one volume. Steps on different volumes run in parallel.
///
/// The lock is held across awaits by design: a step is a read, a decision and a write. It is never held while
/// waiting for the cluster to converge.
#[derive(Clone, Default)]
pub struct Locks {
    volumes: Arc<Mutex<HashMap<Uuid, Arc<AsyncMutex<()>>>>>,
}

/// Holds a volume's lock, or waits for it, until it is dropped.
pub(crate) struct VolumeGuard {
    guard: Option<OwnedMutexGuard<()>>,
    lock: Option<Arc<AsyncMutex<()>>>,
    dataset: Uuid,
    locks: Locks,
}

impl Locks {
    /// Waits for the lock of `dataset` as a phase of `context`'s operation.
    ///
    /// # Errors
    /// [`crate::error::Situation::Cancelled`] when the operation is cancelled first.
    pub(crate) async fn lock(&self, context: &Context, dataset: Uuid) -> Result<VolumeGuard> {
        let mut waiting = self.wait_for(dataset);
        let lock = self.of(dataset);
        let guard = if let Ok(guard) = Arc::clone(&lock).try_lock_owned() {
            guard
        } else {
            let waiting_for = context.phase();
            context.enter(Phase::OtherOperation);
            let guard = context.unless_cancelled(lock.lock_owned()).await?;
            context.enter(waiting_for);
            guard
        };
        waiting.guard = Some(guard);
        Ok(waiting)
    }

    /// Waits for the lock of `dataset` outside of any operation.
    pub(crate) async fn lock_in_background(&self, dataset: Uuid) -> VolumeGuard {
        let mut waiting = self.wait_for(dataset);
        let lock = self.of(dataset);
        waiting.guard = Some(lock.lock_owned().await);
        waiting
    }

    /// Begins to wait. A waiter that is dropped removes the lock as its holder does, who saw the waiter and left it.
    fn wait_for(&self, dataset: Uuid) -> VolumeGuard {
        VolumeGuard {
            guard: None,
            lock: Some(self.of(dataset)),
            dataset,
            locks: self.clone(),
        }
    }

    /// Takes the lock of `dataset` unless another operation holds it.
    pub(crate) fn try_lock(&self, dataset: Uuid) -> Option<VolumeGuard> {
        let mut waiting = self.wait_for(dataset);
        waiting.guard = Some(self.of(dataset).try_lock_owned().ok()?);
        Some(waiting)
    }

    fn of(&self, dataset: Uuid) -> Arc<AsyncMutex<()>> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(volumes.entry(dataset).or_default())
    }
}

impl Drop for VolumeGuard {
    fn drop(&mut self) {
        let mut volumes = self.locks.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        drop((self.guard.take(), self.lock.take()));
        // Each waiter holds a clone, made under the map's lock: one reference means that there is none.
        if volumes
            .get(&self.dataset)
            .is_some_and(|lock| Arc::strong_count(lock) == 1)
        {
            volumes.remove(&self.dataset);
            if volumes.is_empty() {
                volumes.shrink_to(FEW);
            }
        }
    }
}

#[cfg(test)]
impl Locks {
    pub(super) fn is_empty(&self) -> bool {
        self.volumes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}
