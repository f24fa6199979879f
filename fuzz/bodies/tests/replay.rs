//! What fuzzing starts from and what it has found, as ordinary tests: seeds, regressions, and for a while random
//! changes to both, so that a target is known to work where cargo-fuzz is not.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and says why"
)]

use std::fs;
use std::path::PathBuf;

use media_wire::handoff::Path;
use play::Dice;

/// Changes made to each input; cargo-fuzz makes millions.
const CHANGES: u64 = 200;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All files below a folder of the repository.
fn inputs(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name != ".gitkeep") {
                files.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// Cut, doubled, overwritten or with bytes that mean something put in.
fn changed(input: &[u8], dice: &mut Dice) -> Vec<u8> {
    const WORDS: [&[u8]; 12] = [
        b"\r\n",
        b"\r",
        b"\n ",
        b"\0",
        b"\\",
        b"\"",
        b"<",
        b",;,",
        b"Content-Length: 4294967296\r\n",
        b"=",
        b"-1",
        b"\xff\xff",
    ];
    let mut output = input.to_vec();
    for _ in 0..=dice.index(3) {
        let at = dice.index(output.len());
        match dice.index(4) {
            0 => output.truncate(at),
            1 if !output.is_empty() => output[at] = dice.index(256) as u8,
            2 => drop(output.splice(at..at, WORDS[dice.index(WORDS.len())].iter().copied())),
            _ => {
                let end = at + dice.index((output.len() - at).min(64));
                let part = output[at..end].to_vec();
                drop(output.splice(at..at, part));
            }
        }
    }
    output
}

/// Says what was read when something panicked.
struct Culprit(String);

impl Drop for Culprit {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.0);
        }
    }
}

/// Of what is kept for one body, and of files elsewhere that it reads, too.
fn replay(body: fn(&[u8]), name: &str, others: &[&str]) {
    let kept = ["seeds", "regressions"].map(|kind| format!("fuzz/{kind}/{name}"));
    let folders = kept.iter().map(String::as_str).chain(others.iter().copied());
    let all: Vec<_> = folders.flat_map(inputs).collect();
    assert!(!all.is_empty(), "no inputs for {name}");
    let mut dice = Dice::new(0x9e37_79b9_7f4a_7c15);
    for (path, input) in all {
        let _file = Culprit(path.display().to_string());
        body(&input);
        for _ in 0..CHANGES {
            let input = changed(&input, &mut dice);
            let _input = Culprit(input.escape_ascii().to_string());
            body(&input);
        }
    }
}

/// A test of each line: its name, the body, and where else there is something for it.
macro_rules! corpora {
    ($($name:ident: $body:ident, $others:expr;)*) => {$(
        #[test]
        fn $name() {
            replay(fuzz_bodies::$body, stringify!($body), &$others);
        }
    )*};
}

corpora! {
    sip_corpora_hold: sip, ["sip-proxy/wire/tests/torture", "sip-proxy/wire/tests/messages"];
    body_corpora_hold: body, [];
    registrar_corpora_hold: registrar, [];
    sdp_corpora_hold: sdp, [];
    stun_corpora_hold: stun, [];
    rtcp_corpora_hold: rtcp, [];
    latch_corpora_hold: latch, [];
    srtp_corpora_hold: srtp, [];
    crush_corpora_hold: crush, [];
    agent_corpora_hold: agent, [];
}

/// What the agent's fuzzer starts from reaches the states that matter.
#[test]
fn agent_seeds_lead_to_the_direct_path_and_back() {
    let seed = |name: &str| fs::read(root().join("fuzz/seeds/agent").join(name)).unwrap();
    for name in ["controlled-direct", "controlling-direct"] {
        assert_eq!(fuzz_bodies::paths_after(&seed(name)), (Path::Direct, Path::Direct), "{name}");
    }
    assert_eq!(fuzz_bodies::paths_after(&seed("direct-and-back")), (Path::Relay, Path::Relay));
}
