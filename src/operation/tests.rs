//! Joining, cancelling and outliving callers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;

use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Job {
    slot: &'static str,
    size: u32,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "doing job {} of size {}", self.slot, self.size)
    }
}

impl Operation for Job {
    type Slot = &'static str;

    fn name(&self) -> &'static str {
        "job"
    }

    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }

    fn slot(&self) -> Self::Slot {
        self.slot
    }

    fn is_inverse_of(&self, running: &Self) -> bool {
        self.size == 0 && running.size > 0
    }
}

fn operations() -> Arc<Operations<Job, u32>> {
    Arc::new(Operations::new(
        Arc::new(|| "Flocker answered 1 s ago".to_owned()),
        Metrics::default(),
    ))
}

const JOB: Job = Job { slot: "a", size: 1 };

fn seconds(count: u64) -> Deadline {
    Deadline::after(Duration::from_secs(count))
}

#[tokio::test(start_paused = true)]
async fn equal_calls_are_one_operation() {
    let operations = operations();
    let runs = Arc::new(AtomicUsize::new(0));
    let calls = (0..64).map(|_| {
        let runs = Arc::clone(&runs);
        operations.run(JOB, seconds(10), move |_| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(u32::try_from(runs.fetch_add(1, Ordering::SeqCst)).unwrap())
        })
    });
    let results = futures::future::join_all(calls).await;
    assert!(results.iter().all(|result| *result.as_ref().unwrap() == 0));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_after_the_deadline_and_the_retry_joins_it() {
    let operations = operations();
    let work = |context: Context| async move {
        context.enter(Phase::Configured {
            what: Wanted::Lease,
            node: uuid::Uuid::nil(),
        });
        tokio::time::sleep(Duration::from_secs(15)).await;
        Ok(7)
    };
    let error = operations.run(JOB, seconds(10), work).await.unwrap_err();
    assert_eq!(error.situation(), Situation::StillConverging);
    let text = error.chain();
    assert!(
        text.contains("doing job a of size 1: waiting for \"configured\""),
        "{text}"
    );
    assert!(
        text.contains("10.0 s") && text.contains("Flocker answered 1 s ago"),
        "{text}"
    );
    let again = operations.run(JOB, seconds(10), |_| async { Ok(8) }).await;
    assert_eq!(again.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn another_call_on_the_same_slot_waits_for_the_end() {
    let operations = operations();
    let first = operations.run(JOB, seconds(10), |_| async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(1)
    });
    let other = Job { size: 2, ..JOB };
    let (first, second) = tokio::join!(first, operations.run(other, seconds(10), |_| async { Ok(2) }));
    assert_eq!((first.unwrap(), second.unwrap()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_stays_taken_is_busy_and_names_the_operation() {
    let operations = operations();
    let first = operations.run(JOB, seconds(30), |_| async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Ok(1)
    });
    let other = Job { size: 2, ..JOB };
    let (_, second) = tokio::join!(first, operations.run(other, seconds(5), |_| async { Ok(2) }));
    let error = second.unwrap_err();
    assert_eq!(error.situation(), Situation::Busy);
    assert!(
        error
            .chain()
            .contains("\"doing job a of size 1\" is still running"),
        "{}",
        error.chain()
    );
}

#[tokio::test(start_paused = true)]
async fn cancelling_answers_only_after_the_work_has_ended() {
    let operations = operations();
    let ended = Arc::new(AtomicUsize::new(0));
    let (started, work_ended) = (Arc::new(Notify::new()), Arc::clone(&ended));
    let work_started = Arc::clone(&started);
    let first = operations.run(JOB, seconds(30), move |context: Context| async move {
        work_started.notify_one();
        let cancelled = context.unless_cancelled(std::future::pending::<u32>()).await;
        tokio::time::sleep(Duration::from_secs(3)).await; // the verified end of a step
        work_ended.store(1, Ordering::SeqCst);
        cancelled
    });
    let cancel = async {
        started.notified().await;
        operations
            .cancel(seconds(10), |call, _| call.slot == "a")
            .await
            .unwrap();
        ended.load(Ordering::SeqCst)
    };
    let (first, ended_at_answer) = tokio::join!(first, cancel);
    assert_eq!(first.unwrap_err().situation(), Situation::Cancelled);
    assert_eq!(ended_at_answer, 1);
}

#[tokio::test(start_paused = true)]
async fn the_inverse_call_ends_what_waits_and_runs_after_it() {
    let operations = operations();
    let first = operations.run(JOB, seconds(30), |context: Context| async move {
        context.unless_cancelled(std::future::pending::<u32>()).await
    });
    let inverse = Job { size: 0, ..JOB };
    let (first, second) = tokio::join!(first, operations.run(inverse, seconds(10), |_| async { Ok(2) }));
    assert_eq!(first.unwrap_err().situation(), Situation::Cancelled);
    assert_eq!(second.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_mounted_without_a_caller() {
    let operations = operations();
    let mounted = Arc::new(AtomicUsize::new(0));
    let work = {
        let mounted = Arc::clone(&mounted);
        move |context: Context| async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            context.caller_waiting().await?;
            mounted.store(1, Ordering::SeqCst);
            Ok(1)
        }
    };
    let dropped = operations.run(JOB, seconds(10), work);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), dropped)
            .await
            .is_err()
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(mounted.load(Ordering::SeqCst), 0);
    assert_eq!(
        operations
            .run(JOB, seconds(10), |_| async { Ok(2) })
            .await
            .unwrap(),
        1,
        "the retry joins"
    );
    assert_eq!(mounted.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn work_that_no_call_joins_for_twice_its_deadline_ends() {
    let operations = operations();
    let work = |context: Context| async move { context.unless_cancelled(std::future::pending()).await };
    assert!(operations.run(JOB, seconds(10), work).await.is_err());
    tokio::time::sleep(Duration::from_secs(21)).await;
    assert_eq!(
        operations
            .run(JOB, seconds(10), |_| async { Ok(2) })
            .await
            .unwrap(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn abandoned_work_lives_for_twice_the_longest_deadline_that_any_caller_had() {
    let operations = operations();
    let work = |context: Context| async move { context.unless_cancelled(std::future::pending()).await };
    let patient = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        operations.run(JOB, seconds(10), work).await
    };
    let (first, last) = tokio::join!(operations.run(JOB, seconds(1), work), patient);
    assert!(first.is_err() && last.is_err());
    tokio::time::sleep(Duration::from_secs(15)).await;
    let again = operations.run(JOB, seconds(1), |_| async { Ok(2) }).await;
    assert_eq!(
        again.unwrap_err().situation(),
        Situation::StillConverging,
        "the repeated call joins it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_at_once_counts_as_having_asked() {
    let operations = operations();
    let work = |context: Context| async move { context.unless_cancelled(std::future::pending()).await };
    assert!(operations.run(JOB, seconds(10), work).await.is_err());
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(operations.run(JOB, seconds(10), work).now_or_never().is_none());
    tokio::time::sleep(Duration::from_secs(15)).await;
    let again = operations.run(JOB, seconds(1), |_| async { Ok(2) }).await;
    assert_eq!(
        again.unwrap_err().situation(),
        Situation::StillConverging,
        "the repeated call joins it"
    );
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_frees_the_slot() {
    let operations = operations();
    let result = operations
        .run(JOB, seconds(10), |_| async { panic!("bug") })
        .await;
    assert_eq!(result.unwrap_err().situation(), Situation::Internal);
    assert_eq!(
        operations
            .run(JOB, seconds(10), |_| async { Ok(2) })
            .await
            .unwrap(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_removed_when_no_operation_holds_it() {
    let operations = operations();
    let locks = Locks::default();
    let dataset = uuid::Uuid::new_v4();
    let inside = locks.clone();
    let result = operations
        .run(JOB, seconds(10), move |context| async move {
            let first = inside.lock(&context, dataset).await?;
            assert!(
                tokio::time::timeout(Duration::from_secs(1), inside.lock(&context, dataset))
                    .await
                    .is_err(),
                "held once"
            );
            drop(first);
            inside.lock(&context, dataset).await?;
            Ok(3)
        })
        .await;
    assert_eq!(result.unwrap(), 3);
    assert!(locks.is_empty());
}

#[tokio::test]
async fn a_lock_is_removed_when_the_only_one_that_waits_for_it_stops_waiting() {
    let locks = Locks::default();
    let dataset = uuid::Uuid::new_v4();
    let holder = locks.lock_in_background(dataset).await;
    let mut waiter = Box::pin(locks.lock_in_background(dataset));
    assert!(waiter.as_mut().now_or_never().is_none());
    drop(holder);
    assert!(!locks.is_empty(), "it is the waiter's");
    drop(waiter);
    assert!(locks.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_operation_above_the_limit_is_refused_until_another_ends() {
    let operations: Arc<Operations<Numbered, u32>> =
        Arc::new(Operations::new(Arc::new(String::new), Metrics::default()));
    let gate = Arc::new(Notify::new());
    for number in 0..MOST {
        let gate = Arc::clone(&gate);
        let started = operations.run(Numbered(number), seconds(60), move |_| async move {
            gate.notified().await;
            Ok(1)
        });
        assert!(started.now_or_never().is_none());
    }
    let refused = operations
        .run(Numbered(MOST), seconds(60), |_| async { Ok(2) })
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.situation(), Situation::Busy);
    assert!(
        refused.chain().contains("4096 other operations"),
        "{}",
        refused.chain()
    );
    let joined = operations.run(Numbered(7), seconds(60), |_| async { Ok(2) });
    assert!(joined.now_or_never().is_none(), "an equal one is joined");
    gate.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = operations
        .run(Numbered(MOST), seconds(60), |_| async { Ok(2) })
        .await;
    assert_eq!(started.unwrap(), 2);
}

/// An operation with a slot of its own.
#[derive(Clone, Debug, PartialEq)]
struct Numbered(usize);

impl fmt::Display for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "doing job {}", self.0)
    }
}

impl Operation for Numbered {
    type Slot = usize;

    fn name(&self) -> &'static str {
        "job"
    }

    fn subject(&self) -> Subject<'_> {
        Subject::default()
    }

    fn slot(&self) -> usize {
        self.0
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_with_its_callers_ends_just_before_the_last_of_them_is_answered() {
    let operations = operations();
    let began = tokio::time::Instant::now();
    let work = |context: Context| async move {
        context.out_of_time().await;
        Err(Error::new(Situation::HeldElsewhere, "another node has it"))
    };
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        operations.run(JOB, seconds(10), |_| async { Ok(8) }).await
    };
    let (first, last) = tokio::join!(operations.run(JOB, seconds(10), work), later);
    assert_eq!(first.unwrap_err().situation(), Situation::StillConverging);
    assert_eq!(last.unwrap_err().situation(), Situation::HeldElsewhere);
    assert_eq!(
        began.elapsed(),
        Duration::from_secs(13),
        "two seconds are left for undoing"
    );
}

/// Leaves an operation before it ends, so often that nothing of it runs in between.
#[tokio::test(start_paused = true)]
async fn a_wait_goes_on_over_a_gap_without_callers() {
    let operations = operations();
    let call = || {
        operations.run(JOB, seconds(5), |context| async move {
            context.enter(Phase::FlockerAnswering);
            let node = uuid::Uuid::nil();
            context.enter(Phase::BackingVolume { node });
            context.unless_cancelled(std::future::pending()).await
        })
    };
    let began = tokio::time::Instant::now();
    for _ in 0..3 {
        let error = call().await.unwrap_err();
        let waited = Elapsed(began.elapsed()).to_string();
        assert!(
            error.to_string().contains(&format!("yet for {waited}")),
            "{error} {waited}"
        );
        // Until no caller is expected to come back.
        while operations.any(|_, _| true) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(began.elapsed() < Duration::from_secs(300), "the gap is one");
    }
    let done = operations.run(JOB, seconds(5), |context| async move {
        context.enter(Phase::BackingVolume {
            node: uuid::Uuid::nil(),
        });
        Ok(1)
    });
    assert_eq!(done.await.unwrap(), 1);
    let error = call().await.unwrap_err();
    assert!(
        error.to_string().contains("yet for 5.0 s"),
        "a success ends the wait: {error}"
    );
}
