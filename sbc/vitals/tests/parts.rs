//! What becomes of a process whose parts end, panic or hang.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that fails ends")]

use std::pin::Pin;
use std::sync::mpsc::{Receiver, channel};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use vitals::{Death, How, Vitals, Watch};

const SOON: Duration = Duration::from_secs(5);

/// Watched, and what the process would have ended for.
fn watched(silence: Duration) -> (Vitals, Receiver<Death>) {
    let (vitals, deaths) = (Vitals::default(), channel());
    let end = Box::new(move |death: &Death| drop(deaths.0.send(death.clone())));
    vitals.watch(Watch { silence, tick: Box::new(|| {}), end }).unwrap();
    (vitals, deaths.1)
}

fn poll(future: impl Future<Output = ()>) -> Poll<()> {
    let mut future = Box::pin(future);
    Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_thread_that_panics_ends_the_process() {
    let (vitals, deaths) = watched(SOON);
    let part = vitals.part("worker");
    std::thread::spawn(|| part.run(|_| panic!("meant"))).join().unwrap_err();
    let death = deaths.recv_timeout(SOON).unwrap();
    assert_eq!((&*death.part, death.how, death.status()), ("worker", How::Panicked, 70));
}

#[test]
fn a_task_that_returns_or_is_dropped_ends_the_process_unless_it_stops() {
    let (vitals, deaths) = watched(SOON);
    vitals.retire();
    assert!(poll(vitals.part("asked to").task(async {})).is_ready());
    drop(vitals.part("dropped").task(async {}));
    assert!(deaths.recv_timeout(Duration::from_millis(200)).is_err());

    let (vitals, deaths) = watched(SOON);
    let waiting = vitals.part("reader").task(std::future::pending());
    assert!(poll(waiting).is_pending());
    let death = deaths.recv_timeout(SOON).unwrap();
    assert_eq!((&*death.part, death.how), ("reader", How::Returned));
}

#[test]
fn a_panic_while_the_process_stops_is_still_a_death() {
    let (vitals, deaths) = watched(SOON);
    vitals.retire();
    let task = vitals.part("last").task(async { panic!("meant") });
    std::thread::spawn(|| poll(task)).join().unwrap_err();
    assert_eq!(deaths.recv_timeout(SOON).unwrap().how, How::Panicked);
}

#[test]
fn what_dies_before_anybody_watches_is_not_forgotten() {
    let vitals = Vitals::default();
    assert!(poll(vitals.part("early").task(async {})).is_ready());
    assert_eq!(vitals.death().map(|death| death.how), Some(How::Returned));
    let (deaths, died) = channel();
    let end = Box::new(move |death: &Death| drop(deaths.send(death.clone())));
    vitals.watch(Watch { silence: SOON, tick: Box::new(|| {}), end }).unwrap();
    assert_eq!(&*died.recv_timeout(SOON).unwrap().part, "early");
}

#[test]
fn an_endless_loop_is_seen_by_the_processor_time_it_takes() {
    let (vitals, deaths) = watched(Duration::from_secs(3600));
    let part = vitals.part("loop");
    std::thread::spawn(|| {
        part.run(|_| {
            loop {
                std::hint::spin_loop();
            }
        })
    });
    // Other tests share the processors.
    let death = deaths.recv_timeout(SOON * 2).unwrap();
    assert_eq!((&*death.part, death.status()), ("loop", 71));
}

#[test]
fn a_part_that_waits_for_ever_is_told_and_then_ends_the_process_while_one_that_beats_does_not() {
    let (vitals, deaths) = watched(Duration::from_millis(2800));
    let (stuck, lively) = (vitals.part("stuck"), vitals.part("lively"));
    std::thread::spawn(|| stuck.run(|_| std::thread::sleep(SOON * 2)));
    std::thread::spawn(|| {
        lively.run(|pulse| {
            while pulse.beat() {
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    });
    std::thread::sleep(Duration::from_millis(2300));
    let silent: Vec<_> = vitals.silent().into_iter().map(|part| part.0).collect();
    assert_eq!(silent, ["stuck".into()]);
    assert_eq!(&*deaths.recv_timeout(SOON).unwrap().part, "stuck");
}

#[test]
fn a_task_that_beats_and_never_comes_round_hangs() {
    let (vitals, deaths) = watched(SOON);
    let part = vitals.part("store").rounds(Duration::from_millis(300));
    std::thread::spawn(|| {
        let mut task = Box::pin(part.task(async {
            vitals::round();
            std::future::pending::<()>().await;
        }));
        while task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(&*deaths.recv_timeout(SOON).unwrap().part, "store");
}

#[test]
fn what_is_replaced_when_it_is_silent_or_ends_costs_nothing_else() {
    let (vitals, deaths) = watched(Duration::from_millis(300));
    assert!(poll(vitals.part("pages").replaced().task(async {})).is_ready());
    let part = vitals.part("stuck pages").replaced();
    std::thread::spawn(|| part.run(|_| std::thread::sleep(SOON)));
    assert!(deaths.recv_timeout(Duration::from_millis(2400)).is_err());
    assert_eq!(vitals.silent().len(), 1);
    vitals.forget("stuck pages");
    assert!(vitals.silent().is_empty());
}

#[test]
fn what_belongs_to_a_part_may_end_but_not_panic() {
    let (vitals, deaths) = watched(SOON);
    let part = vitals.part("acceptor");
    std::thread::spawn(|| {
        part.run(|pulse| {
            assert!(poll(vitals::belonging(async {})).is_ready());
            assert!(pulse.beat());
            poll(vitals::belonging(async { panic!("meant") }))
        })
    })
    .join()
    .unwrap_err();
    assert_eq!(deaths.recv_timeout(SOON).unwrap().how, How::Panicked);
}
