//! Short versions of `make release-long`: what ends direct calls that are longer than others here.

use crush_tests::long;
use crush_tests::long::row::{Cut, Row, Vad};
use crush_tests::phone::Kind;

use crate::{BARESIP, LINPHONE, PJSIP};

fn plays(rows: &[Row]) {
    let programs = rows.iter().flat_map(|row| row.kinds).map(Kind::program);
    let programs: Vec<&str> = programs.chain(["openssl", "curl", "psql"]).collect();
    if let Some(reason) = crush_tests::Lab::impossible(&programs) {
        eprintln!("SKIPPED: {reason}");
        return;
    }
    for (row, outcome) in rows.iter().zip(long::play(rows)) {
        let outcome = outcome.unwrap();
        println!("{}", outcome.row(row));
        assert!(outcome.missed(row).is_empty(), "{row}: {:?}\n{:?}", outcome.missed(row), outcome.kept);
    }
}

fn row(kinds: [Kind; 2], loss: u8, vad: Vad) -> Row {
    Row { kinds, loss, vad, cut: Cut::None, seconds: 45, run: 1 }
}

/// A report of each is lost, too: who says nothing, and of whom nothing is said, is where he was.
#[test]
fn phones_that_fall_silent_stay_direct() {
    plays(&[row([LINPHONE, PJSIP], 0, Vad::Both), row([PJSIP, BARESIP], 0, Vad::One)]);
}

#[test]
fn phones_on_lines_that_lose_packets_and_reports_stay_direct() {
    plays(&[row([BARESIP, LINPHONE], 2, Vad::None), row([PJSIP, PJSIP], 2, Vad::One)]);
}

#[test]
fn phones_whose_path_is_cut_late_one_way_come_home() {
    let cut = |kinds, cut| Row { cut, seconds: 75, ..row(kinds, 0, Vad::None) };
    plays(&[cut([LINPHONE, BARESIP], Cut::Out), cut([Kind::Softphone; 2], Cut::In)]);
}
