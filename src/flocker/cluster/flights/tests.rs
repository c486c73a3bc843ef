//! On a clock that only moves when everybody waits.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::FutureExt;
use futures::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{advance, sleep, timeout};

use super::*;

/// How long it takes Flocker to answer.
const FLIGHT: Duration = Duration::from_millis(20);

/// A Flocker that counts, and can be down.
#[derive(Clone, Default)]
struct Sky(Arc<Seen>);

#[derive(Default)]
struct Seen {
    down: AtomicBool,
    flights: AtomicUsize,
    in_the_air: AtomicUsize,
    most_in_the_air: AtomicUsize,
    lists: Mutex<Vec<Lists>>,
}

impl Sky {
    fn flights(&self) -> Arc<Flights> {
        let sky = self.clone();
        Flights::new(move |lists| sky.clone().fly(lists).boxed(), Box::new(|_| {}))
    }

    async fn fly(self, lists: Lists) -> Result<Snapshot, flocker_client::Error> {
        let seen = &self.0;
        let down = seen.down.load(Ordering::SeqCst);
        seen.flights.fetch_add(1, Ordering::SeqCst);
        seen.lists.lock().unwrap().push(lists);
        let others = seen.in_the_air.fetch_add(1, Ordering::SeqCst);
        seen.most_in_the_air.fetch_max(others + 1, Ordering::SeqCst);
        let began = Instant::now();
        sleep(FLIGHT).await;
        seen.in_the_air.fetch_sub(1, Ordering::SeqCst);
        if down {
            return Err(flocker_client::Error::Invalid {
                problem: "it is down".to_owned(),
                source: None,
            });
        }
        Ok(Snapshot::empty(began, lists))
    }

    fn down(&self, down: bool) {
        self.0.down.store(down, Ordering::SeqCst);
    }

    fn count(&self) -> usize {
        self.0.flights.load(Ordering::SeqCst)
    }
}

fn in_a(duration: Duration) -> Urgency {
    Urgency::Poll(Instant::now() + duration)
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_share_the_flight_that_begins_after_they_asked() {
    let sky = Sky::default();
    let flights = sky.flights();
    let first = tokio::spawn({
        let flights = Arc::clone(&flights);
        async move { flights.join(Lists::STATE, Urgency::Now).await }
    });
    sleep(FLIGHT / 2).await;
    let asked = Instant::now();
    let callers = (0..1000).map(|_| flights.join(Lists::STATE, Urgency::Now));
    for outcome in join_all(callers).await {
        assert!(
            outcome.unwrap().began() >= asked,
            "an older answer may be outdated"
        );
    }
    first.await.unwrap().unwrap();
    assert_eq!(sky.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_single_caller_is_not_kept_waiting() {
    let sky = Sky::default();
    let flights = sky.flights();
    let began = Instant::now();
    for _ in 0..50 {
        flights.join(Lists::STATE, Urgency::Now).await.unwrap();
    }
    assert!(
        began.elapsed() < FLIGHT * 51 + Duration::from_millis(50),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_comes_one_by_one_gathers_for_few_flights() {
    let sky = Sky::default();
    let flights = sky.flights();
    let callers = (0..1000u32).map(|number| {
        let flights = &flights;
        async move {
            // Four of them while one flight is in the air.
            sleep(FLIGHT / 4 * number).await;
            flights.join(Lists::STATE, Urgency::Now).await.unwrap();
        }
    });
    join_all(callers).await;
    // In 5 s there would be 250 flights without a pause, and there are 63 of 20 ms with 60 ms after each.
    assert!((55..=70).contains(&sky.count()), "{} flights", sky.count());
}

#[tokio::test(start_paused = true)]
async fn there_is_never_more_than_one_flight() {
    let sky = Sky::default();
    let flights = sky.flights();
    let mut callers = JoinSet::new();
    for number in 0..200u64 {
        let flights = Arc::clone(&flights);
        callers.spawn(async move {
            sleep(Duration::from_millis(number * 7 % 300)).await;
            let lists = [Lists::STATE, Lists::LEASES, Lists::NODES][usize::try_from(number % 3).unwrap()];
            let urgency = if number % 2 == 0 {
                Urgency::Now
            } else {
                in_a(Duration::from_millis(number))
            };
            // Some give up in the middle.
            timeout(Duration::from_millis(10 + number), flights.join(lists, urgency))
                .await
                .is_ok()
        });
    }
    let answered = callers.join_all().await;
    assert!(
        answered.contains(&true) && answered.contains(&false),
        "{answered:?}"
    );
    assert_eq!(sky.0.most_in_the_air.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_nobody_waits() {
    let sky = Sky::default();
    let flights = sky.flights();
    flights.join(Lists::STATE, Urgency::Now).await.unwrap();
    let given_up = timeout(FLIGHT, flights.join(Lists::STATE, in_a(Duration::from_secs(1)))).await;
    assert!(given_up.is_err());
    advance(Duration::from_secs(3600)).await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(sky.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flight_brings_the_lists_that_somebody_needs_and_no_others() {
    let sky = Sky::default();
    let flights = sky.flights();
    let both = tokio::join!(
        flights.join(Lists::NODES, in_a(FLIGHT)),
        flights.join(Lists::LEASES, in_a(FLIGHT)),
    );
    both.0.unwrap();
    both.1.unwrap();
    flights.join(Lists::STATE, Urgency::Now).await.unwrap();
    let lists = sky.0.lists.lock().unwrap().clone();
    assert_eq!(lists, [Lists::NODES | Lists::LEASES, Lists::STATE]);
}

/// Waits as somebody does whose call goes on when Flocker is down; returns the number of failures met.
async fn until_answered(flights: Arc<Flights>, urgency: Urgency) -> usize {
    let mut failures = 0;
    while flights.join(Lists::STATE, urgency).await.is_err() {
        failures += 1;
    }
    failures
}

#[tokio::test(start_paused = true)]
async fn a_flocker_that_is_down_is_asked_less_and_less_and_its_return_makes_no_herd() {
    let sky = Sky::default();
    sky.down(true);
    let flights = sky.flights();
    let mut waiters = JoinSet::new();
    for _ in 0..1000 {
        waiters.spawn(until_answered(
            Arc::clone(&flights),
            Urgency::Poll(Instant::now()),
        ));
    }
    sleep(Duration::from_secs(60)).await;
    // The shortest pauses are 0.25, 0.5, 1, 2 and 4 s, and then 5 s each.
    let while_down = sky.count();
    assert!((6..=17).contains(&while_down), "{while_down} flights in a minute");

    sky.down(false);
    let failures = waiters.join_all().await;
    assert_eq!(sky.count(), while_down + 1, "one flight answers them all");
    assert!(
        failures.iter().all(|failures| *failures == while_down),
        "each flight was everybody's"
    );
}

#[tokio::test(start_paused = true)]
async fn callers_in_a_hurry_do_not_hammer_a_flocker_that_is_down() {
    let sky = Sky::default();
    sky.down(true);
    let flights = sky.flights();
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        callers.spawn(until_answered(Arc::clone(&flights), Urgency::Now));
    }
    sleep(Duration::from_secs(60)).await;
    // From the third on, pauses are half a second at least.
    let while_down = sky.count();
    assert!(
        (30..=122).contains(&while_down),
        "{while_down} flights in a minute"
    );

    sky.down(false);
    let answered = Instant::now();
    callers.join_all().await;
    assert_eq!(sky.count(), while_down + 1);
    assert!(
        answered.elapsed() <= LONGEST_HURRY + FLIGHT * 2,
        "on the paused clock"
    );
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_pause_for_everybody() {
    let sky = Sky::default();
    sky.down(true);
    let flights = sky.flights();
    let waiter = tokio::spawn(until_answered(
        Arc::clone(&flights),
        Urgency::Poll(Instant::now()),
    ));
    sleep(Duration::from_secs(60)).await;
    sky.down(false);
    let other = flights.join(Lists::LEASES, Urgency::Now).await;
    other.unwrap();
    let back = Instant::now();
    waiter.await.unwrap();
    assert!(
        back.elapsed() <= FLIGHT * 2,
        "{:?} on the paused clock",
        back.elapsed()
    );
}
