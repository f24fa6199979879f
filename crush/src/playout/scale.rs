//! A frame of samples made a little longer or shorter without changing its pitch: a piece is repeated or left out where
//! it is most like its neighbour, and cross-faded (the idea of WSOLA, for one splice a frame).

/// Samples of cross-fade.
const OVERLAP: usize = 32;

/// `samples` (16 bit, mono) in `length` samples. The change must be small against the frame (docs/crush.md allows 5 %);
/// a frame too short for a splice is cut or padded with its last sample.
pub fn scale(samples: &[i16], length: usize) -> Vec<i16> {
    if length == samples.len() {
        return samples.to_vec();
    }
    let change = length.abs_diff(samples.len());
    let Some(last) = samples.len().checked_sub(OVERLAP.saturating_add(change)).filter(|last| *last >= change)
    else {
        let mut cut = samples.to_vec();
        cut.resize(length, samples.last().copied().unwrap_or(0));
        return cut;
    };
    // At a splice, `from` fades out and `to` fades in.
    let longer = length > samples.len();
    let beside = |at: usize| if longer { at.saturating_sub(change) } else { at.saturating_add(change) };
    // What is behind the end is never asked for: a splice and its neighbour lie inside.
    let from = |at: usize| samples.get(at..).unwrap_or_default();
    let pairs = |at: usize| from(at).iter().zip(from(beside(at))).take(OVERLAP);
    let unlike =
        |at: &usize| pairs(*at).map(|(one, to)| (f64::from(*one) - f64::from(*to)).powi(2)).sum::<f64>();
    let places = change..=last;
    let at = places.min_by(|one, other| unlike(one).total_cmp(&unlike(other))).unwrap_or(change);
    let mut scaled = samples.get(..at).unwrap_or_default().to_vec();
    scaled.extend(pairs(at).enumerate().map(|(i, (one, to))| {
        let share = (i as f64 + 0.5) / OVERLAP as f64;
        (f64::from(*one) * (1.0 - share) + f64::from(*to) * share).round() as i16
    }));
    scaled.extend(from(beside(at).saturating_add(OVERLAP)));
    scaled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(length: usize) -> Vec<i16> {
        (0..length).map(|n| (8000.0 * (n as f64 * 0.2).sin()) as i16).collect()
    }

    #[test]
    fn lengths_are_exact_and_the_ends_untouched() {
        let frame = tone(160);
        for length in 152..=168 {
            let scaled = scale(&frame, length);
            assert_eq!(scaled.len(), length);
            assert_eq!((scaled[0], scaled[length - 1]), (frame[0], frame[159]));
        }
    }

    #[test]
    fn a_splice_makes_no_click() {
        let frame = tone(160);
        let steepest = |samples: &[i16]| samples.windows(2).map(|w| (w[1] - w[0]).unsigned_abs()).max();
        for length in [152, 168] {
            assert!(steepest(&scale(&frame, length)).unwrap() <= steepest(&frame).unwrap() * 5 / 4);
        }
    }

    #[test]
    fn frames_too_short_to_splice_are_padded() {
        assert_eq!(scale(&[1, 2, 3], 5), [1, 2, 3, 3, 3]);
        assert_eq!(scale(&[], 2), [0, 0]);
    }
}
