use std::fs::OpenOptions;

use sip_engine::event::{CallEnded, CallStarted, EndCause, Side};
use sip_engine::media::SessionId;

use super::*;

fn event(call: u128, sequence: u32, second: u64, what: CallEventKind) -> CallEvent {
    let (wall, monotonic) = (Duration::from_secs(1_000_000 + second), Duration::from_secs(second));
    CallEvent { call, sequence, wall, monotonic, what }
}

fn started() -> CallEventKind {
    CallEventKind::Started(Box::new(CallStarted {
        session: SessionId(1),
        realm: "access".into(),
        source: "192.0.2.1:5060".parse().unwrap(),
        transport: "UDP".into(),
        caller: "".into(),
        from: "sip:alice@example.net".into(),
        request_uri: "sip:bob@example.net".into(),
        call_id: "one".into(),
        user_agent: "".into(),
        minted_call_id: "".into(),
    }))
}

fn answered() -> CallEventKind {
    let destination = "192.0.2.2:5060".parse().unwrap();
    CallEventKind::Answered {
        realm: "core".into(),
        trunk: Some("carrier".into()),
        destination,
        reached: "sip:bob@example.net".into(),
        uri: "sip:bob@192.0.2.9:5062".into(),
    }
}

fn ended(cause: EndCause, seconds: u64) -> CallEventKind {
    CallEventKind::Ended(Box::new(CallEnded {
        cause,
        side: Side::Caller,
        status: 200,
        alerting_after: None,
        answered_after: Some(Duration::from_secs(1)),
        total: Duration::from_secs(seconds + 1),
        talked: Duration::from_secs(seconds),
        direct: Duration::ZERO,
        media: Vec::new(),
    }))
}

fn all(journal: &Journal) -> Vec<CallEvent> {
    journal.read(Position::default(), usize::MAX).unwrap().0
}

fn newest(directory: &Path) -> PathBuf {
    segment::path(directory, *segment::list(directory).unwrap().last().unwrap())
}

fn append_bytes(file: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(file).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_crash_closes_open_calls_at_the_last_heartbeat_even_after_a_torn_line() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(7, 0, 10, started()));
    journal.append(&event(7, 1, 12, answered()));
    journal.heartbeat(Duration::from_secs(5), Duration::from_secs(20));
    journal.close();
    drop(journal);
    append_bytes(&newest(directory.path()), b"{\"Event\":{\"ca");

    let journal = Journal::open(directory.path()).unwrap();
    let (events, position) = journal.read(Position::default(), 100).unwrap();
    let CallEventKind::Ended(ended) = &events[2].what else { panic!("{events:?}") };
    assert_eq!((ended.cause, ended.talked, events[2].sequence), (EndCause::Crash, Duration::from_secs(8), 2));
    assert_eq!(events[2].wall, Duration::from_secs(5));
    assert_eq!(journal.read(position, 100).unwrap().0, []);
    drop(journal);
    assert_eq!(all(&Journal::open(directory.path()).unwrap()).len(), 3, "closed once");
}

#[test]
fn the_heartbeats_of_a_later_process_do_not_lengthen_a_call_that_died_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 500, started()));
    journal.heartbeat(Duration::from_secs(9), Duration::from_secs(503));
    drop(journal);
    // The next process died too, before it had closed the call; its monotonic clock began anew.
    let mut second = segment::create(directory.path(), 2).unwrap();
    for line in [
        Line::Opened,
        Line::Event(event(2, 0, 1, started())),
        Line::Heartbeat { wall: Duration::from_secs(99), monotonic: Duration::from_secs(7) },
    ] {
        second.write_all(&line.encode().unwrap()).unwrap();
    }
    let lengths: Vec<_> = all(&Journal::open(directory.path()).unwrap())
        .into_iter()
        .filter_map(|event| match event.what {
            CallEventKind::Ended(ended) => Some((event.call, event.wall.as_secs(), ended.total.as_secs())),
            _ => None,
        })
        .collect();
    assert_eq!(lengths, [(1, 9, 3), (2, 99, 6)]);
}

#[test]
fn a_second_process_is_refused_before_it_closes_the_first_ones_calls() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 1, started()));
    let refused = Journal::open(directory.path()).unwrap_err().to_string();
    assert!(refused.contains("another sbc runs"), "{refused}");
    assert_eq!(all(&journal).len(), 1);
}

#[test]
fn a_reader_gets_every_event_once_however_small_its_steps_and_shipped_segments_go() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    for call in 0..50 {
        journal.append(&event(call, 0, 1, started()));
    }
    journal.state().size = SEGMENT;
    for call in 50..100 {
        journal.append(&event(call, 0, 1, started()));
    }
    let (mut seen, mut position) = (Vec::new(), Position::default());
    loop {
        let (events, next) = journal.read(position, 7).unwrap();
        if events.is_empty() {
            break;
        }
        position = next;
        seen.extend(events.iter().map(|event| event.call));
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    journal.mark_shipped(position).unwrap();
    assert_eq!(segment::list(directory.path()).unwrap().len(), 2, "open calls keep their segment");
    for call in 0..50 {
        journal.append(&event(call, 1, 2, ended(EndCause::Bye, 1)));
    }
    journal.mark_shipped(position).unwrap();
    assert_eq!(segment::list(directory.path()).unwrap(), [2], "and let it go with their end");
}

#[test]
fn a_disk_that_takes_nothing_delays_events_and_loses_none_when_it_takes_them_again() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 1, started()));
    let good = journal.state().file.clone();
    // Every write to it fails with ENOSPC.
    journal.state().file = Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
    journal.append(&event(1, 1, 2, answered()));
    journal.append(&event(1, 2, 3, ended(EndCause::Bye, 1)));
    assert_eq!(journal.counters.waiting.load(Ordering::Relaxed), 2);
    assert!(journal.counters.failed.load(Ordering::Relaxed) >= 2);
    assert_eq!(all(&journal).len(), 1);
    // Half a line got through before the disk was full.
    (&*good).write_all(b"{\"Event\":{\"call\":1,").unwrap();
    journal.state().file = good;
    journal.append(&event(2, 0, 4, started()));
    let calls: Vec<_> = all(&journal).iter().map(|event| (event.call, event.sequence)).collect();
    assert_eq!(calls, [(1, 0), (1, 1), (1, 2), (2, 0)]);
    assert_eq!(journal.counters.waiting.load(Ordering::Relaxed), 0);
    assert_eq!(journal.counters.damaged.load(Ordering::Relaxed), 0);
}

#[test]
fn events_beyond_what_memory_may_hold_are_counted_as_lost() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    {
        let mut state = journal.state();
        state.file = Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        // Not empty: an empty write succeeds even there, and the journal's thread would get rid of them in between.
        state.waiting = vec![b"x".to_vec(); WAITING].into();
    }
    journal.append(&event(1, 0, 1, started()));
    assert_eq!(journal.counters.lost.load(Ordering::Relaxed), 1);
}

#[test]
fn a_damaged_line_is_passed_over_and_counted_and_those_round_it_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 1, started()));
    append_bytes(&newest(directory.path()), b"{\"Event\":{\"call\":2,\xff\x00\n");
    journal.append(&event(3, 0, 1, started()));
    let calls: Vec<_> = all(&journal).iter().map(|event| event.call).collect();
    assert_eq!(calls, [1, 3]);
    assert_eq!(journal.counters.damaged.load(Ordering::Relaxed), 1);
}

#[test]
fn zeros_that_a_power_failure_left_at_the_end_are_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 1, started()));
    journal.append(&event(1, 1, 2, ended(EndCause::Bye, 1)));
    drop(journal);
    append_bytes(&newest(directory.path()), &[0; 4096]);
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(2, 0, 1, started()));
    let calls: Vec<_> = all(&journal).iter().map(|event| event.call).collect();
    assert_eq!(calls, [1, 1, 2]);
    assert_eq!(journal.counters.damaged.load(Ordering::Relaxed), 0, "torn, not damaged");
}

#[test]
fn a_line_that_is_still_being_written_is_read_when_it_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let line = Line::Event(event(1, 0, 1, started())).encode().unwrap();
    let (first, second) = line.split_at(40);
    let file = newest(directory.path());
    append_bytes(&file, first);
    let (events, position) = journal.read(Position::default(), 10).unwrap();
    assert_eq!(events, []);
    append_bytes(&file, second);
    assert_eq!(journal.read(position, 10).unwrap().0.len(), 1);
}

#[test]
fn events_after_removed_segments_are_still_behind_the_mark() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.mark_shipped(Position { segment: 9, offset: 100 }).unwrap();
    drop(journal);
    for segment in segment::list(directory.path()).unwrap() {
        fs::remove_file(segment::path(directory.path(), segment)).unwrap();
    }
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 1, started()));
    assert_eq!(journal.read(journal.shipped(), 10).unwrap().0.len(), 1);
}
