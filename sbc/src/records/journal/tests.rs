use std::fs::OpenOptions;
use std::io::Write;

use play::records::answered;
use seam::Endpoint;
use seam::path::{Entry, PathEntry, PathRecord, PathState, Reason};
use sip_engine::event::{CallEnded, EndCause, EndedBy};

use super::*;

fn event(call: u128, sequence: u32, second: u64, what: CallEventKind) -> CallEvent {
    let (wall, monotonic) = (Duration::from_secs(1_000_000 + second), Duration::from_secs(second));
    CallEvent { call, sequence, wall, monotonic, what }
}

fn started() -> CallEventKind {
    play::records::started("sip:alice@example.net")
}

fn ended(cause: EndCause, seconds: u64) -> CallEventKind {
    CallEventKind::Ended(Box::new(CallEnded {
        answered_after: Some(Duration::from_secs(1)),
        total: Duration::from_secs(seconds + 1),
        talked: Duration::from_secs(seconds),
        ..CallEnded::new(cause, EndedBy::Caller, 200)
    }))
}

fn all(journal: &Journal) -> Vec<CallEvent> {
    journal.read(Position::default(), usize::MAX).unwrap().0
}

fn newest(directory: &Path) -> PathBuf {
    segment::path(directory, *segment::list(directory).unwrap().last().unwrap())
}

/// A file on a disk without room.
fn full() -> Arc<File> {
    Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap())
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
    journal.disk().size = SEGMENT;
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
    let good = journal.disk().file.clone().unwrap();
    // Every write to it fails with ENOSPC.
    journal.disk().file = Some(full());
    journal.append(&event(1, 1, 2, answered()));
    journal.append(&event(1, 2, 3, ended(EndCause::Bye, 1)));
    assert_eq!(journal.counters.waiting.load(Ordering::Relaxed), 2);
    assert!(journal.counters.failed.load(Ordering::Relaxed) >= 2);
    assert_eq!(all(&journal).len(), 1);
    // Half a line got through before the disk was full.
    (&*good).write_all(b"{\"Event\":{\"call\":1,").unwrap();
    journal.disk().file = Some(good);
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
        let mut disk = journal.disk();
        disk.file = Some(full());
        // Not empty: an empty write succeeds even there, and the journal's thread would get rid of them in between.
        let waiting = || disk::Waiting { bytes: b"x".to_vec(), line: Line::Opened };
        disk.waiting = std::iter::repeat_with(waiting).take(WAITING).collect();
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

fn metered(direct: u64, is_direct: bool) -> CallEventKind {
    CallEventKind::Metered { direct: Duration::from_secs(direct), is_direct }
}

fn path(to: PathState) -> CallEventKind {
    CallEventKind::Path(PathRecord::Entry(PathEntry {
        after: Duration::ZERO,
        entry: Entry::State { to, why: Reason::Proven },
        parties: [0, 1].map(|party| Endpoint { party, branch: 0 }),
    }))
}

/// What a crash makes of a call's direct time: answered at second 10, alive until second 610.
fn direct_after_a_crash(events: &[(u64, CallEventKind)]) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 8, started()));
    journal.append(&event(1, 1, 10, answered()));
    for (second, what) in events {
        journal.append(&event(1, 2, *second, what.clone()));
    }
    journal.heartbeat(Duration::from_secs(1_000_610), Duration::from_secs(610));
    drop(journal);
    let events = all(&Journal::open(directory.path()).unwrap());
    let CallEventKind::Ended(ended) = &events.last().unwrap().what else { panic!("{events:?}") };
    assert_eq!(ended.talked, Duration::from_secs(600));
    ended.direct.as_secs()
}

#[test]
fn direct_time_after_a_crash_is_what_was_measured_and_not_what_states_are_called() {
    // Its video is direct, and its audio on the relay: nothing is measured.
    assert_eq!(direct_after_a_crash(&[(20, path(PathState::Direct))]), 0);
    // A party was replaced: the media came home without a state that says so.
    let replaced = [(20, path(PathState::Direct)), (20, metered(0, true)), (30, metered(10, false))];
    assert_eq!(direct_after_a_crash(&replaced), 10);
    // Two stretches, the second one until the end.
    let twice = [(20, metered(0, true)), (30, metered(10, false)), (310, metered(10, true))];
    assert_eq!(direct_after_a_crash(&twice), 310);
}

#[test]
fn what_the_journal_measures_for_itself_is_no_record() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 1, started()));
    journal.append(&event(1, 1, 2, metered(0, true)));
    assert_eq!(all(&journal).len(), 1);
}

#[test]
fn files_of_the_journal_are_their_owners_alone_and_those_of_an_earlier_version_become_it() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("journal");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.join("shipped.json"), "{\"segment\":1,\"offset\":7}").unwrap();
    fs::set_permissions(directory.join("shipped.json"), fs::Permissions::from_mode(0o644)).unwrap();
    let journal = Journal::open(&directory).unwrap();
    journal.append(&event(1, 0, 1, started()));
    journal.mark_shipped(Position { segment: 2, offset: 1 }).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn segments_that_are_deleted_by_hand_are_put_back_and_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    for call in 0..5 {
        journal.append(&event(call, 0, 1, started()));
    }
    journal.disk().size = SEGMENT;
    for call in 5..10 {
        journal.append(&event(call, 0, 1, started()));
    }
    for segment in segment::list(directory.path()).unwrap() {
        fs::remove_file(segment::path(directory.path(), segment)).unwrap();
    }
    for call in 10..15 {
        journal.append(&event(call, 0, 1, started()));
    }
    assert_eq!(all(&journal).len(), 15, "the handles still know them");
    let patience = Instant::now() + Duration::from_secs(5);
    while segment::list(directory.path()).unwrap().len() < 2 {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(100));
    journal.append(&event(15, 0, 1, started()));
    journal.close();
    drop(journal);
    let started = |event: &&CallEvent| matches!(event.what, CallEventKind::Started(_));
    assert_eq!(all(&Journal::open(directory.path()).unwrap()).iter().filter(started).count(), 16);
}

#[test]
fn an_open_call_keeps_no_segment_for_ever_and_is_closed_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 10, started()));
    journal.append(&event(1, 1, 12, answered()));
    journal.append(&event(1, 2, 20, metered(3, false)));
    journal.disk().size = SEGMENT;
    journal.append(&event(2, 0, 21, started()));
    let (_, position) = journal.read(Position::default(), 100).unwrap();
    journal.mark_shipped(position).unwrap();
    // What is told again goes to the present segment; with the next mark the old one can go.
    journal.append(&event(2, 1, 22, answered()));
    journal.mark_shipped(position).unwrap();
    assert_eq!(segment::list(directory.path()).unwrap(), [2]);
    journal.heartbeat(Duration::from_secs(1_000_100), Duration::from_secs(100));
    drop(journal);
    let events = all(&Journal::open(directory.path()).unwrap());
    let ends: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.what {
            CallEventKind::Ended(ended) => {
                Some((event.call, event.sequence, ended.talked.as_secs(), ended.direct.as_secs()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(1, 3, 88, 3), (2, 2, 78, 0)]);
}

#[test]
fn a_write_that_stalls_keeps_nobody_who_need_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.append(&event(1, 0, 1, started()));
    // A pipe that nobody reads takes 64 KiB, and then writes stall; it cannot be cut, as a stalled disk can't.
    let (reader, writer) = std::io::pipe().unwrap();
    let good = journal.disk().file.replace(Arc::new(File::from(std::os::fd::OwnedFd::from(writer)))).unwrap();
    let begun = Instant::now();
    let mut last = 0;
    for call in 2..1_000 {
        last = journal.submit(event(call, 0, 1, started()));
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let patience = Instant::now() + Duration::from_secs(5);
    while !journal.is_stalled() {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(journal.settled() < last, "who must wait does");
    let woken = Arc::new(AtomicU64::new(0));
    let counter = woken.clone();
    journal.when_settled(Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    journal.await_ticket(last);
    // The disk comes back.
    let drain = std::thread::spawn(move || std::io::copy(&mut { reader }, &mut std::io::sink()));
    while journal.settled() < last {
        assert!(Instant::now() < patience + Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(woken.load(Ordering::Relaxed) > 0);
    journal.disk().file = Some(good);
    drain.join().unwrap().unwrap();
}

/// A file system of this many octets of its own, if we may make one.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(octets: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={octets}"), "tmpfs"])
            .arg(directory.path())
            .output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(directory));
        }
        eprintln!("SKIPPED: a tmpfs can't be mounted without root");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_is_full_of_its_own_backlog_drains_and_loses_no_record() {
    let Some(small) = Small::mount(33 << 20) else { return };
    let directory = small.0.path().join("journal");
    let journal = Journal::open(&directory).unwrap();
    // A call that began in the first segment stays open.
    journal.append(&event(0, 0, 1, started()));
    let mut call = 0;
    while journal.counters.waiting.load(Ordering::Relaxed) == 0 {
        for _ in 0..100 {
            call += 1;
            journal.submit(event(call, 0, 1, started()));
            journal.append(&event(call, 1, 2, ended(EndCause::Bye, 1)));
        }
    }
    // The process ends and the next one finds the disk as full: it starts all the same.
    let in_memory = journal.counters.waiting.load(Ordering::Relaxed);
    assert!(in_memory > 0 && call > 10_000, "{in_memory} {call}");
    let begun = Instant::now();
    let (mut seen, mut position) = (std::collections::HashSet::new(), journal.shipped());
    loop {
        let (events, next) = journal.read(position, 500).unwrap();
        seen.extend(events.iter().map(|event| (event.call, event.sequence)));
        if next != position {
            journal.mark_shipped(next).unwrap();
        } else if journal.counters.waiting.load(Ordering::Relaxed) == 0 {
            break;
        }
        position = next;
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(seen.len() as u128, 1 + 2 * call);
    let left = segment::list(&directory).unwrap();
    assert!(left.len() <= 2, "{left:?}");
    drop(journal);
    let journal = Journal::open(&directory).unwrap();
    let events = journal.read(journal.shipped(), 100).unwrap().0;
    let crashed = |event: &CallEvent| event.call == 0 && matches!(event.what, CallEventKind::Ended(_));
    assert!(events.iter().any(crashed), "the call that was open is closed");
}

#[test]
fn a_process_that_finds_its_disk_full_starts_and_drains_it() {
    let Some(small) = Small::mount(8 << 20) else { return };
    let directory = small.0.path().join("journal");
    let journal = Journal::open(&directory).unwrap();
    let mut call = 0;
    while journal.counters.waiting.load(Ordering::Relaxed) == 0 {
        call += 1;
        journal.submit(event(call, 0, 1, started()));
        journal.append(&event(call, 1, 2, ended(EndCause::Bye, 1)));
    }
    let _ = fs::remove_file(directory.join("shipped.json"));
    drop(journal);
    let fill = fs::write(small.0.path().join("more"), vec![0; 8 << 20]);
    assert!(fill.is_err());
    let journal = Journal::open(&directory).unwrap();
    journal.append(&event(1_000_000, 0, 3, started()));
    let (mut seen, mut position) = (std::collections::HashSet::new(), journal.shipped());
    let patience = Instant::now() + Duration::from_secs(30);
    while !seen.contains(&1_000_000) {
        let (events, next) = journal.read(position, 500).unwrap();
        seen.extend(events.iter().map(|event| event.call));
        if next != position {
            journal.mark_shipped(next).unwrap();
        }
        position = next;
        assert!(Instant::now() < patience, "{} of {call}", seen.len());
    }
    // The last line was cut off by the full disk, and waited in the memory of a process that is gone.
    assert!(seen.len() as u128 >= call, "{} of {call}", seen.len());
}

#[test]
fn bindings_are_kept_until_the_store_has_them_and_no_longer() {
    use sip_engine::registrar::BindingChange;
    let directory = tempfile::tempdir().unwrap();
    let text = "[database]\nurl = \"postgres:///x\"\n[[realm]]\nname = \"access\"\nauthentication = \"address\"\n\
        listen = [\"udp:127.0.0.1:5060\"]\nmedia = [\"127.0.0.1\"]\n";
    let settings = crate::config::Settings::parse(text, Path::new("sbc.toml")).unwrap();
    let names = crate::store::names::Names::new(&settings.plane.engine);
    let delete = |uri: &str| BindingChange::Delete { aor: "alice@example.net".into(), uri: uri.into() };
    let journal = Journal::open(directory.path()).unwrap();
    let (kept, mut changes) = tokio::sync::mpsc::unbounded_channel();
    assert!(journal.keep_registrations(names.clone(), kept).changes.is_empty());
    journal.inbox.wait_for(journal.submit_binding(delete("sip:1")));
    journal.inbox.wait_for(journal.submit_binding(delete("sip:2")));
    assert!(matches!(changes.try_recv(), Ok(Kept::Change(_))));
    drop(journal);
    // The process died before the store had them.
    let journal = Journal::open(directory.path()).unwrap();
    let (kept, _changes) = tokio::sync::mpsc::unbounded_channel();
    let replay = journal.keep_registrations(names.clone(), kept);
    assert_eq!(replay.changes.len(), 2);
    journal.inbox.wait_for(journal.submit_binding(delete("sip:3")));
    let line = registrations::line(&names, &delete("sip:2")).unwrap();
    journal.compact_registrations(replay.turn, &[line]).unwrap();
    drop(journal);
    let journal = Journal::open(directory.path()).unwrap();
    let (kept, _changes) = tokio::sync::mpsc::unbounded_channel();
    let replay = journal.keep_registrations(names, kept);
    assert_eq!(replay.changes.len(), 2, "the one that was left, and the new one");
    journal.forget_registrations(replay.turn).unwrap();
    let (kept, _changes) = tokio::sync::mpsc::unbounded_channel();
    let names = crate::store::names::Names::new(&settings.plane.engine);
    assert!(journal.keep_registrations(names, kept).changes.is_empty());
}
