//! What the log says while the database is away, and when it is back: true, and to be acted upon.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::node::{Phone, Program, SOON, within};
use crate::opening::Opening;

/// What tells of trouble, and what tells of its end.
const LINES: [(&str, &str); 5] = [
    ("subscribers, trunks and routes can't be read", "subscribers, trunks and routes are read again"),
    ("the policy of single calls can't be read", "the policy of single calls is read again"),
    ("outcomes of release can't be written", "outcomes of release are read and written again"),
    ("bindings can't be", "bindings are read and written again"),
    ("call records wait in the journal", "call records reach the database again"),
];

/// Each line of trouble is told, while the database is away no end of it is, and afterwards each one's.
fn tells_of_each(cluster: &Cluster, program: &Program, lines: &[(&str, &str)], away: impl FnOnce()) {
    let log = || program.log();
    assert!(
        within(SOON * 2, || lines.iter().all(|(trouble, _)| log().contains(trouble))),
        "not all troubles are told: {}",
        log()
    );
    away();
    std::thread::sleep(Duration::from_millis(2500));
    for (_, over) in LINES {
        assert!(!log().contains(over), "{over}, and the database is away: {}", log());
    }
    let is_trouble = |line: &&str| LINES.iter().any(|(trouble, _)| line.contains(trouble));
    for line in log().lines().filter(is_trouble) {
        // The cluster listens at a socket only.
        assert!(!line.contains("host") && !line.contains("port"), "{line}");
        assert_eq!(
            line.contains("would forget"),
            line.contains("outcomes") && !line.contains("waiting=0"),
            "{line}"
        );
    }
    cluster.start_again();
    assert!(
        within(SOON * 3, || lines.iter().all(|(_, over)| log().contains(over))),
        "not all ends are told: {}",
        log()
    );
}

#[test]
fn each_trouble_with_the_database_is_told_with_its_cure_and_its_end_only_when_it_is_back() {
    let Some((cluster, mut program)) = Opening::with_subscriber().made() else { return };
    // Away at the start, when there is no call that could leave a record.
    cluster.stop();
    program.serve();
    // Policy is read when bindings were.
    let at_start = &LINES[1..4];
    tells_of_each(&cluster, &program, at_start, || {});
    assert!(within(SOON, || program.status("/readyz") == Some(200)), "{}", program.log());
    program.signal("TERM");
    assert!(within(SOON, || program.has_ended()));

    program.serve_all();
    cluster.stop();
    let mut phone = Phone::new(program.sip);
    assert_eq!(phone.register("secret"), 200);
    assert_eq!(phone.call("secret", "nobody"), 404);
    tells_of_each(&cluster, &program, &LINES, || {
        // What waited to be written need not be any more: nothing is left to ask the database for.
        phone.expires = 0;
        assert_eq!(phone.register("secret"), 200);
    });
    assert!(within(SOON, || cluster.psql("SELECT count(*) FROM call WHERE cause = 'not_found'") == "1"));
    let log = program.log();
    for (trouble, over) in LINES {
        let told = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        assert_eq!((told(trouble), told(over)), (1, 1), "{trouble}: {log}");
    }
}
