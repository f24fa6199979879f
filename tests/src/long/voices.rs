//! Who speaks when in a long call, and at what else happens in it: all of it follows from the row, so that it can be played again.

use std::time::Duration;

use nat_lab::Random;

use crate::tone::Turn;

/// Seconds of speech, and of silence, between which turns lie.
const SPEAKS: [f64; 2] = [2.0, 12.0];
const RESTS: [f64; 2] = [1.0, 20.0];

/// Uniform between two limits.
pub fn between(random: &mut Random, [least, most]: [f64; 2]) -> f64 {
    least + (most - least) * random.share()
}

/// Turns for at least so long.
pub fn turns(random: &mut Random, seconds: f64) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut length = 0.0;
    while length < seconds {
        let turn = Turn { speaks: between(random, SPEAKS), rests: between(random, RESTS) };
        length += turn.speaks + turn.rests;
        turns.push(turn);
    }
    turns
}

/// When silence begins and ends, since the first turn.
pub fn rests(turns: &[Turn]) -> Vec<[Duration; 2]> {
    let mut at = 0.0;
    let mut rests = Vec::new();
    for turn in turns {
        let start = at + turn.speaks;
        at = start + turn.rests;
        rests.push([start, at].map(Duration::from_secs_f64));
    }
    rests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_fill_their_time_and_their_rests_lie_in_it() {
        let turns = turns(&mut Random::new(3), 60.0);
        let length: f64 = turns.iter().map(|turn| turn.speaks + turn.rests).sum();
        assert!((60.0..92.0).contains(&length), "{length}");
        let rests = rests(&turns);
        assert!(rests.iter().all(|[start, end]| start < end));
        assert_eq!(rests.last().map(|[_, end]| end.as_secs_f64().round()), Some(length.round()));
    }
}
