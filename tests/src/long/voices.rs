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

/// Seconds of speech in the first seconds of all.
pub fn speech_in(turns: &[Turn], seconds: f64) -> f64 {
    let mut left = seconds;
    let mut speech = 0.0;
    for turn in turns {
        speech += turn.speaks.min(left.max(0.0));
        left -= turn.speaks + turn.rests;
    }
    speech
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(rests: &[[Duration; 2]]) -> f64 {
        rests.iter().map(|[start, end]| (*end - *start).as_secs_f64()).sum()
    }

    #[test]
    fn turns_fill_their_time_and_their_rests_lie_in_it() {
        let turns = turns(&mut Random::new(3), 60.0);
        let length: f64 = turns.iter().map(|turn| turn.speaks + turn.rests).sum();
        assert!((60.0..92.0).contains(&length), "{length}");
        let rests = rests(&turns);
        assert!(rests.iter().all(|[start, end]| start < end));
        assert!((speech_in(&turns, 1e9) + silence(&rests) - length).abs() < 0.001);
        assert_eq!(speech_in(&turns, 1.5), 1.5);
        assert_eq!(rests.last().map(|[_, end]| end.as_secs_f64().round()), Some(length.round()));
    }
}
