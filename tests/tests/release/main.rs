//! Media of real phones leaves the relay, is proven by their reports, and comes back when the path fails, when a party or
//! policy calls. `make test` plays each pair and place once, `make release-matrix` all of them many times.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]
#![allow(clippy::print_stdout, reason = "what was measured is worth reading where all is well, too")]

/// A test of `make release-matrix` for each line: its name, and the phones that a function plays with.
macro_rules! pairs {
    ($play_all:ident; $($name:ident: $one:expr, $other:expr;)*) => {
        $(
            #[test]
            #[ignore = "make release-matrix"]
            fn $name() {
                $play_all([$one, $other]);
            }
        )*
    };
}

mod crowds;
mod halves;
mod long;
mod matrix;
mod never;
mod records;
mod scene;
mod story;

use crush_tests::phone::Kind;
use crush_tests::place::Place;
use crush_tests::skip_unless_possible;

use story::{Story, goes_well};

const BARESIP: Kind = Kind::Baresip;
const LINPHONE: Kind = Kind::Linphone;
const PJSIP: Kind = Kind::Pjsua;

fn lan(nat: &str) -> Place {
    Place::Lan(nat.parse().unwrap())
}

fn apart(one: &str, other: &str) -> Place {
    Place::Apart([one.parse().unwrap(), other.parse().unwrap()])
}

/// A test for each line: its name, who is in it, where, and what happens.
macro_rules! stories {
    ($($name:ident: $kinds:expr, $place:expr, $story:ident;)*) => {
        $(
            #[test]
            fn $name() {
                let kinds: [Kind; 2] = $kinds;
                skip_unless_possible!(kinds[0].program(), kinds[1].program(), "conntrack", "curl", "openssl");
                goes_well(kinds, $place, Story::$story);
            }
        )*
    };
}

stories! {
    baresip_and_linphone_in_the_open_leave_and_are_called_back: [BARESIP, LINPHONE], Place::Open, CalledBack;
    two_linphones_of_one_lan_leave_and_are_called_back: [LINPHONE, LINPHONE], lan("cone"), CalledBack;
    two_pjsips_of_one_lan_leave_and_are_called_back: [PJSIP, PJSIP], lan("nft-cone"), CalledBack;
    baresip_and_pjsip_in_the_open_leave_and_are_called_back: [BARESIP, PJSIP], Place::Open, CalledBack;
    two_baresips_of_one_lan_leave_and_are_called_back: [BARESIP, BARESIP], lan("cone"), CalledBack;
    linphone_and_pjsip_in_the_open_leave_and_are_called_back: [LINPHONE, PJSIP], Place::Open, CalledBack;

    linphone_and_pjsip_leave_between_two_cones: [LINPHONE, PJSIP], apart("cone", "cone"), CalledBack;
    baresip_and_linphone_leave_between_two_milder_cones: [BARESIP, LINPHONE], apart("full-cone", "restricted-cone"), CalledBack;
    two_pjsips_leave_between_two_nats_of_linux: [PJSIP, PJSIP], apart("nft-cone", "nft-cone"), CalledBack;

    linphones_behind_a_symmetric_nat_are_never_moved: [LINPHONE, LINPHONE], apart("symmetric-random", "cone"), NeverMoved;
    baresips_with_a_symmetric_nat_between_them_are_never_moved: [BARESIP, BARESIP], apart("full-cone", "symmetric-sequential"), NeverMoved;
    pjsips_behind_a_symmetric_nat_of_linux_are_never_moved: [PJSIP, PJSIP], apart("nft-symmetric-random", "cone"), NeverMoved;

    two_baresips_whose_path_is_blocked_are_heard_again: [BARESIP, BARESIP], apart("cone", "cone"), Blocked;
    two_linphones_whose_path_is_blocked_are_heard_again: [LINPHONE, LINPHONE], apart("cone", "cone"), Blocked;
    two_pjsips_whose_path_is_blocked_are_heard_again: [PJSIP, PJSIP], apart("cone", "cone"), Blocked;

    baresip_and_linphone_are_heard_again_when_their_path_is_cut: [BARESIP, LINPHONE], apart("cone", "cone"), Cut;
    two_pjsips_are_heard_again_when_their_path_is_cut: [PJSIP, PJSIP], apart("cone", "nft-cone"), Cut;
    baresip_and_pjsip_are_heard_again_when_their_lan_is_cut: [BARESIP, PJSIP], lan("cone"), Cut;

    a_linphone_that_holds_a_pjsip_comes_home_and_leaves_again: [LINPHONE, PJSIP], Place::Open, Held;
    a_baresip_that_holds_a_linphone_comes_home_and_leaves_again: [BARESIP, LINPHONE], Place::Open, Held;
}
