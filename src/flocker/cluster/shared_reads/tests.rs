//! On a clock that only advances when every task waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{advance, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::back_off::poll_waits;
use super::*;

/// How long Flocker takes to answer.
const READ: Duration = Duration::from_millis(20);

/// A Flocker that counts reads, and can be down.
#[derive(Clone, Default)]
struct FakeFlocker(Arc<Seen>);

#[derive(Default)]
struct Seen {
    down: AtomicBool,
    reads: AtomicUsize,
    concurrent: AtomicUsize,
    most_concurrent: AtomicUsize,
    lists: Mutex<Vec<Lists>>,
    /// How long reads take, if not [`READ`].
    takes: Mutex<Option<Duration>>,
}

impl FakeFlocker {
    fn shared_reads(&self) -> Arc<SharedReads> {
        let flocker = self.clone();
        let tasks = Supervisor::new(CancellationToken::new(), || {});
        SharedReads::new(
            move |lists| flocker.clone().read(lists).boxed(),
            Box::new(|_| {}),
            tasks,
        )
    }

    async fn read(self, lists: Lists) -> Result<Snapshot, flocker_client::Error> {
        let seen = &self.0;
        let down = seen.down.load(Ordering::SeqCst);
        seen.reads.fetch_add(1, Ordering::SeqCst);
        seen.lists.lock().unwrap().push(lists);
        let others = seen.concurrent.fetch_add(1, Ordering::SeqCst);
        seen.most_concurrent.fetch_max(others + 1, Ordering::SeqCst);
        let began = Instant::now();
        let takes = *seen.takes.lock().unwrap();
        sleep(takes.unwrap_or(READ)).await;
        seen.concurrent.fetch_sub(1, Ordering::SeqCst);
        if down {
            return Err(flocker_client::Error::Invalid {
                problem: "it is down".to_owned(),
                source: None,
            });
        }
        Ok(Snapshot::empty(began, lists))
    }

    fn taking(takes: Duration) -> Self {
        let flocker = Self::default();
        *flocker.0.takes.lock().unwrap() = Some(takes);
        flocker
    }

    fn down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
    }

    fn count(&self) -> usize {
        self.0.reads.load(Ordering::SeqCst)
    }
}

fn in_a(duration: Duration) -> Urgency {
    Urgency::Poll(Instant::now() + duration)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_share_the_read_that_starts_after_their_requests() {
    let flocker = FakeFlocker::default();
    let reads = flocker.shared_reads();
    let first = tokio::spawn({
        let reads = Arc::clone(&reads);
        async move { reads.join(Lists::STATE, Urgency::Now).await }
    });
    sleep(READ / 2).await;
    let asked = Instant::now();
    let callers = (0..1000).map(|_| reads.join(Lists::STATE, Urgency::Now));
    for outcome in join_all(callers).await {
        assert!(
            outcome.unwrap().began() >= asked,
            "an older answer may be outdated"
        );
    }
    first.await.unwrap().unwrap();
    assert_eq!(flocker.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_single_caller_does_not_wait() {
    let flocker = FakeFlocker::default();
    let reads = flocker.shared_reads();
    let began = Instant::now();
    for _ in 0..50 {
        reads.join(Lists::STATE, Urgency::Now).await.unwrap();
    }
    assert!(
        began.elapsed() < READ * 51 + Duration::from_millis(50),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_one_by_one_gather_for_few_reads() {
    let flocker = FakeFlocker::default();
    let reads = flocker.shared_reads();
    let callers = (0..1000u32).map(|number| {
        let reads = &reads;
        async move {
            // Four of them during one read.
            sleep(READ / 4 * number).await;
            reads.join(Lists::STATE, Urgency::Now).await.unwrap();
        }
    });
    join_all(callers).await;
    // In 5 s there would be 250 reads without a pause, and there are 63 of 20 ms with 60 ms after each.
    assert!((55..=70).contains(&flocker.count()), "{} reads", flocker.count());
}

#[tokio::test(start_paused = true)]
async fn there_is_never_more_than_one_read() {
    let flocker = FakeFlocker::default();
    let reads = flocker.shared_reads();
    let mut callers = JoinSet::new();
    for number in 0..200u64 {
        let reads = Arc::clone(&reads);
        callers.spawn(async move {
            sleep(Duration::from_millis(number * 7 % 300)).await;
            let lists = [Lists::STATE, Lists::LEASES, Lists::NODES][usize::try_from(number % 3).unwrap()];
            let urgency = if number % 2 == 0 {
                Urgency::Now
            } else {
                in_a(Duration::from_millis(number))
            };
            // Some stop waiting in the middle.
            timeout(Duration::from_millis(10 + number), reads.join(lists, urgency))
                .await
                .is_ok()
        });
    }
    let answered = callers.join_all().await;
    assert!(
        answered.contains(&true) && answered.contains(&false),
        "{answered:?}"
    );
    assert_eq!(flocker.0.most_concurrent.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_without_a_caller() {
    let flocker = FakeFlocker::default();
    let reads = flocker.shared_reads();
    reads.join(Lists::STATE, Urgency::Now).await.unwrap();
    let timed_out = timeout(READ, reads.join(Lists::STATE, in_a(Duration::from_secs(1)))).await;
    assert!(timed_out.is_err());
    advance(Duration::from_secs(3600)).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(flocker.count(), 1);
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn cheap_lists_are_asked_for_at_once_and_others_when_something_can_have_happened() {
    let pace = |took: [u64; 3]| Pace::of(&took.map(ms).into());
    assert_eq!(Pace::of(&VecDeque::new()), Pace::Cheap(Duration::ZERO));
    // The connection was made for one of them.
    assert_eq!(pace([1, 8, 1]), Pace::Cheap(ms(10)));
    assert_eq!(pace([5, 5, 5]), Pace::Cheap(ms(50)));
    // A real Flocker, idle and with a thousand datasets.
    assert_eq!(pace([14, 15, 14]), Pace::Sparing(ms(450)));
    assert_eq!(pace([34, 34, 34]), Pace::Sparing(ms(1020)));
    assert_eq!(pace([1, 1, 1]).first_wait_for(ms(2_000)), ms(10));
    assert_eq!(pace([14, 14, 14]).first_wait_for(ms(2_000)), ms(2_000));
    assert_eq!(pace([14, 14, 14]).first_wait_for(ms(20)), ms(420));
}

/// Waits as an operation does for what happens `after` so long, and returns when it knows.
async fn poll_for(reads: &Arc<SharedReads>, after: Duration, known: Duration) -> Duration {
    let began = Instant::now();
    let mut due = began;
    for wait in poll_waits(reads.pace().first_wait_for(known)) {
        due += wait;
        let read = reads.join(Lists::STATE, Urgency::Poll(due)).await.unwrap();
        if read.began() >= began + after {
            break;
        }
        due = Instant::now();
    }
    began.elapsed()
}

/// By the number of reads: with a fixed pause before each there would be fewer, and the wait would be longer.
#[tokio::test(start_paused = true)]
async fn what_happens_soon_is_seen_soon_where_reads_are_cheap() {
    for (after, reads_expected, seen_within) in [
        (5, 1..=1, 12),
        (20, 2..=3, 30),
        (60, 3..=5, 100),
        (500, 8..=11, 800),
    ] {
        let flocker = FakeFlocker::taking(ms(1));
        let reads = flocker.shared_reads();
        reads.join(Lists::STATE, Urgency::Now).await.unwrap();
        let seen = poll_for(&reads, ms(after), ms(2_000)).await;
        let polls = flocker.count() - 1;
        assert!(
            reads_expected.contains(&polls),
            "{polls} reads for what happens after {after} ms"
        );
        assert!(
            seen <= ms(seen_within),
            "{after} ms: seen after {seen:?} on the paused clock"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn polling_takes_a_tenth_of_the_time_at_most_and_slows_down_to_a_read_in_two_seconds() {
    const TIME: Duration = Duration::from_secs(600);
    for takes in [1, 5, 14, 34, 300, 2_000].map(ms) {
        let flocker = FakeFlocker::taking(takes);
        let reads = flocker.shared_reads();
        reads.join(Lists::STATE, Urgency::Now).await.unwrap();
        poll_for(&reads, TIME, Duration::ZERO).await;
        let polls = u32::try_from(flocker.count()).unwrap();
        assert!(takes * polls <= TIME / 10 + takes, "{polls} reads of {takes:?}");
        // A wait of 2 s is up to 15 % shorter, at random.
        assert!(polls <= 600 * 10 / 17 + 20, "{polls} reads of {takes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_waiters_that_begin_again_and_again_leave_flocker_most_of_its_time() {
    for takes in [1, 5, 14].map(ms) {
        let flocker = FakeFlocker::taking(takes);
        let reads = flocker.shared_reads();
        let waiters = (0..50u64).map(|number| {
            let reads = &reads;
            async move {
                let until = Instant::now() + Duration::from_secs(10);
                while Instant::now() < until {
                    poll_for(reads, ms(20 + number), Duration::ZERO).await;
                }
            }
        });
        join_all(waiters).await;
        let spent = takes * u32::try_from(flocker.count()).unwrap();
        assert!(
            spent <= Duration::from_secs(10) / 10 + takes * 3,
            "{spent:?} of 10 s for reads of {takes:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_fetches_the_lists_that_callers_need_and_no_others() {
    let flocker = FakeFlocker::default();
    let reads = flocker.shared_reads();
    let both = tokio::join!(
        reads.join(Lists::NODES, in_a(READ)),
        reads.join(Lists::LEASES, in_a(READ)),
    );
    both.0.unwrap();
    both.1.unwrap();
    reads.join(Lists::STATE, Urgency::Now).await.unwrap();
    let lists = flocker.0.lists.lock().unwrap().clone();
    assert_eq!(lists, [Lists::NODES | Lists::LEASES, Lists::STATE]);
}

/// Waits as an operation does that continues when Flocker is down; returns the number of failures.
async fn until_answered(reads: Arc<SharedReads>, urgency: Urgency) -> usize {
    let mut failures = 0;
    while reads.join(Lists::STATE, urgency).await.is_err() {
        failures += 1;
    }
    failures
}

#[tokio::test(start_paused = true)]
async fn a_flocker_that_is_down_is_read_ever_more_rarely_and_its_return_causes_one_read() {
    let flocker = FakeFlocker::default();
    flocker.down(true);
    let reads = flocker.shared_reads();
    let mut waiters = JoinSet::new();
    for _ in 0..1000 {
        waiters.spawn(until_answered(Arc::clone(&reads), Urgency::Poll(Instant::now())));
    }
    sleep(Duration::from_secs(60)).await;
    // The shortest pauses are 0.25, 0.5, 1, 2 and 4 s, and then 5 s each.
    let while_down = flocker.count();
    assert!((6..=17).contains(&while_down), "{while_down} reads in a minute");

    flocker.down(false);
    let failures = waiters.join_all().await;
    assert_eq!(flocker.count(), while_down + 1, "one read answers them all");
    assert!(
        failures.iter().all(|failures| *failures == while_down),
        "every caller shared each read"
    );
}

#[tokio::test(start_paused = true)]
async fn urgent_requests_do_not_overload_a_flocker_that_is_down() {
    let flocker = FakeFlocker::default();
    flocker.down(true);
    let reads = flocker.shared_reads();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        callers.spawn(until_answered(Arc::clone(&reads), Urgency::Now));
    }
    sleep(Duration::from_secs(60)).await;
    // From the third on, pauses are half a second at least.
    let while_down = flocker.count();
    assert!((30..=122).contains(&while_down), "{while_down} reads in a minute");

    flocker.down(false);
    let answered = Instant::now();
    callers.join_all().await;
    assert_eq!(flocker.count(), while_down + 1);
    assert!(
        answered.elapsed() <= LONGEST_URGENT_PAUSE + READ * 2,
        "on the paused clock"
    );
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_pause_of_all_callers() {
    let flocker = FakeFlocker::default();
    flocker.down(true);
    let reads = flocker.shared_reads();
    let waiter = tokio::spawn(until_answered(Arc::clone(&reads), Urgency::Poll(Instant::now())));
    sleep(Duration::from_secs(60)).await;
    flocker.down(false);
    let other = reads.join(Lists::LEASES, Urgency::Now).await;
    other.unwrap();
    let back = Instant::now();
    waiter.await.unwrap();
    assert!(
        back.elapsed() <= READ * 2,
        "{:?} on the paused clock",
        back.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_that_panics_is_counted_and_its_callers_are_answered_by_the_next_one() {
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&panics);
    let tasks = Supervisor::new(CancellationToken::new(), move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let read = Arc::new(AtomicUsize::new(0));
    let fetch = move |lists| {
        let number = read.fetch_add(1, Ordering::SeqCst);
        async move {
            sleep(READ).await;
            assert!(number >= 2, "a fault of the reader");
            Ok(Snapshot::empty(Instant::now(), lists))
        }
        .boxed()
    };
    let reads = SharedReads::new(fetch, Box::new(|_| {}), tasks);
    let callers = (0..5).map(|_| reads.join(Lists::STATE, Urgency::Now));
    assert!(join_all(callers).await.iter().all(Result::is_ok));
    assert_eq!(panics.load(Ordering::SeqCst), 2);
}
