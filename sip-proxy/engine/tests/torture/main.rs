//! The torture messages of RFC 4475 and RFC 5118, from the archives of their appendices: what we do with each, and why.
//! docs/torture.md is the table for readers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod node;
mod table;

use std::fs;
use std::path::{Path, PathBuf};

use memchr::memmem;
use node::{Outcome, datagram, stream};
use sip_wire::{Message, check_request};
use table::{CASES, Case};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// As the archive has it.
fn archived(case: &Case) -> Vec<u8> {
    let path = repository().join("sip-proxy/wire/tests/torture").join(format!("{}.dat", case.file));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// As it would arrive. RFC 4475's baddn lacks the empty line behind its head, which is not what it is about. RFC 5118's
/// archive holds text files: lines end in LF, two heads lack their empty line, and Content-Length counts the octets of
/// yet another edition. What its messages are about is judged with these put right.
fn text(case: &Case) -> Vec<u8> {
    let mut text = archived(case);
    if case.file.starts_with("rfc4475") {
        if memmem::find(&text, b"\r\n\r\n").is_none() {
            text.extend_from_slice(b"\r\n");
        }
        return text;
    }
    let text = String::from_utf8(text).unwrap().replace('\n', "\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text.trim_end(), ""));
    let lines: Vec<&str> = head.lines().filter(|line| !line.starts_with("Content-Length")).collect();
    format!("{}\r\nContent-Length: {}\r\n\r\n{body}", lines.join("\r\n"), body.len()).into_bytes()
}

#[test]
fn every_message_of_the_archives_has_its_row() {
    for rfc in ["rfc4475", "rfc5118"] {
        let folder = repository().join("sip-proxy/wire/tests/torture").join(rfc);
        let files = fs::read_dir(folder).unwrap().count();
        assert_eq!(CASES.iter().filter(|case| case.file.starts_with(rfc)).count(), files, "{rfc}");
    }
}

#[test]
fn each_datagram_gets_what_the_table_says() {
    let wrong: Vec<String> = CASES
        .iter()
        .filter_map(|case| {
            let doings = datagram(&text(case));
            let got = doings.outcome();
            let line = format!("{}: {got:?} {:?}, not {:?}", case.file, doings.notices, case.outcome);
            (got != case.outcome).then_some(line)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn over_a_stream_only_what_breaks_the_framing_closes_the_connection() {
    // What ends before its body waits for the rest, which a time-out of the connection ends.
    const WAITS: [&str; 1] = ["rfc4475/clerr"];
    // A start line that cannot be read costs the one message: where it ends is known.
    const CLOSES: [&str; 2] = ["ncl", "mcl01"];
    const UNBOUNDED: [&str; 1] = ["inv2543"];
    for case in CASES {
        let Some(doings) = stream(&text(case)) else {
            assert!(WAITS.contains(&case.file), "{}", case.file);
            continue;
        };
        let name = case.file.split('/').next_back().unwrap_or_default();
        // Old peers leave Content-Length out, which they may over UDP only (RFC 3261 §20.14).
        let lengthless = UNBOUNDED.contains(&name);
        let outcome = if lengthless { Outcome::Answered(400) } else { case.outcome };
        assert_eq!(doings.outcome(), outcome, "{}", case.file);
        assert_eq!(doings.closed, lengthless || CLOSES.contains(&name), "{}", case.file);
    }
}

#[test]
fn what_goes_on_is_sound_and_shows_nothing_of_where_it_came_from() {
    for case in CASES.iter().filter(|case| case.outcome == Outcome::Relayed) {
        let came = Message::parse(text(case).into()).unwrap();
        let went = datagram(&text(case)).onward.remove(0);
        for secret in [
            came.call_id().unwrap(),
            came.via().unwrap().host.as_bytes(),
            came.from().unwrap().tag().unwrap_or_default(),
        ] {
            let is_word = secret.len() >= 6;
            assert!(
                !is_word || memmem::find(&went, secret).is_none(),
                "{}: {}",
                case.file,
                secret.escape_ascii()
            );
        }
        let went = Message::parse(went).unwrap();
        check_request(&went).unwrap_or_else(|cause| panic!("{}: {cause}", case.file));
        assert_eq!(went.method(), came.method(), "{}", case.file);
        assert_eq!(went.body(), came.body(), "{}", case.file);
    }
}

#[test]
fn lines_that_end_in_a_bare_line_feed_are_refused() {
    for case in CASES.iter().filter(|case| case.file.starts_with("rfc5118")) {
        assert_eq!(datagram(&archived(case)).outcome(), Outcome::Answered(400), "{}", case.file);
    }
}

#[test]
fn the_table_for_readers_is_this_one() {
    let mut page = String::from(
        "# Torture messages\n\nWhat the SBC does with the messages of [RFC 4475](https://www.rfc-editor.org/rfc/rfc4475) and [RFC 5118](https://www.rfc-editor.org/rfc/rfc5118),\nsent as datagrams into a realm that authenticates nobody, forwards REGISTER and has a route for everything. Tested byte for byte\nby `sip-proxy/engine/tests/torture`, which also makes this page. Answered: by ourselves, with this status. Relayed: into the other\nrealm. Dropped: without an answer, and counted.\n\n| § | message | what we do | why |\n| --- | --- | --- | --- |\n",
    );
    for case in CASES {
        let (rfc, name) = case.file.split_once('/').unwrap();
        let what = match case.outcome {
            Outcome::Answered(status) => format!("answered {status}"),
            other => format!("{other:?}").to_lowercase(),
        };
        let why = case.why.replace('<', "&lt;").replace('>', "&gt;");
        page.push_str(&format!("| {} {} | {name} | {what} | {why} |\n", &rfc[3..], case.section));
    }
    let written = repository().join("docs/torture.md");
    if fs::read_to_string(&written).unwrap_or_default() != page {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("torture.md");
        fs::write(&made, &page).unwrap();
        panic!(
            "docs/torture.md is not this table; mend it with: cp {} {}",
            made.display(),
            written.display()
        );
    }
}
