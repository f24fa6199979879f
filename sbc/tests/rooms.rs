//! Rooms of the program know what stands under all of them, and never each other.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails ends")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may name besides itself. `app` names them all; what is not here names nobody.
const MAY_NAME: [(&str, &[&str]); 11] = [
    ("host", &[]),
    ("config", &[]),
    ("blocking", &[]),
    ("store", &["config"]),
    ("policy", &["host", "store", "config"]),
    ("calls", &["host", "store", "config"]),
    ("records", &["host", "store", "config", "blocking"]),
    ("metrics", &["host"]),
    ("http", &[]),
    ("discovery", &["config"]),
    ("doctor", &["store", "config"]),
];

/// All files of a folder and those below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The rooms that a text names: what follows on `crate::`, and on as many `super::` as lead out of the room.
fn named(text: &str, depth: usize) -> BTreeSet<String> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>();
    let code = code.join("\n");
    let mut found = BTreeSet::new();
    for way in ["crate::".to_owned(), "super::".repeat(depth)] {
        for (at, _) in code.match_indices(&way) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
                continue;
            }
            let rest = &code[at + way.len()..];
            let names = match rest.strip_prefix('{') {
                Some(list) => heads(list),
                None => vec![rest],
            };
            let word = |name: &str| -> String {
                name.trim_start()
                    .chars()
                    .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                    .collect()
            };
            // `super::*` is how a module of tests names its own file.
            found.extend(names.into_iter().map(word).filter(|name| !name.is_empty() && name != "super"));
        }
    }
    found
}

/// The items of a list in braces, without what is in braces of their own.
fn heads(list: &str) -> Vec<&str> {
    let (mut open, mut begin, mut heads) = (0_u32, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '{' => open += 1,
            '}' if open == 0 => {
                heads.push(&list[begin..at]);
                break;
            }
            '}' => open -= 1,
            ',' if open == 0 => {
                heads.push(&list[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    heads
}

#[test]
fn rooms_name_only_what_stands_under_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in files(&source) {
        let inside = path.strip_prefix(&source).unwrap().with_extension("");
        let steps: Vec<&str> =
            inside.iter().map(|step| step.to_str().unwrap()).filter(|step| *step != "mod").collect();
        let Some(room) = steps.first().filter(|room| !["lib", "main", "app"].contains(room)) else {
            continue;
        };
        let known = MAY_NAME.iter().find(|(name, _)| name == room);
        let (_, may) = known.unwrap_or_else(|| panic!("a room without a line in the table: {room}"));
        let text = fs::read_to_string(&path).unwrap();
        for name in named(&text, steps.len()) {
            if name != *room && !may.contains(&name.as_str()) {
                wrong.push(format!("{} names {name}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Who drives the planes, or asks what they can. What others want of a running call they order through `calls`.
const MAY_NAME_PLANES: [&str; 4] = ["app", "host", "config", "doctor"];

#[test]
fn nothing_reaches_a_running_session_past_the_engine() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut drive = Vec::new();
    for path in files(&source) {
        let inside = path.strip_prefix(&source).unwrap().with_extension("");
        let room = inside.iter().next().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let names_planes = ["media_relay::", "sip_proxy::"].iter().any(|name| text.contains(name));
        assert!(!names_planes || MAY_NAME_PLANES.contains(&&*room), "{} names a plane", inside.display());
        if text.contains("relay.handle(") {
            drive.push(room);
        }
    }
    assert_eq!(drive, ["host"], "signalling's requests alone go to the relay");
}

#[test]
fn whatever_way_a_room_is_named_it_is_seen() {
    let names = |text, depth| named(text, depth).into_iter().collect::<Vec<_>>();
    assert_eq!(names("use crate::store::{self, bounded};", 2), ["store"]);
    assert_eq!(names("use crate::{calls, policy::rows::{Known, Row}};", 2), ["calls", "policy"]);
    assert_eq!(names("fn a() { crate::records::read(); } // crate::nothing", 2), ["records"]);
    assert_eq!(names("use super::Calls; use super::super::records::read;", 2), ["records"]);
    assert_eq!(names("use super::http::Pages;", 1), ["http"]);
    assert_eq!(names("use other_crate::store; use super::Calls;", 2), Vec::<String>::new());
    assert_eq!(names("use super::*;", 1), Vec::<String>::new());
}
