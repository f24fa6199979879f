//! The rule by which a NAT gives out ports, from a few of them.

use media_wire::sdp::crush::PortPattern;

/// Ports further apart than this do not follow each other.
const NEAR: i16 = 32;

/// Each port once, where it came first.
pub(super) fn different(mapped: &[u16]) -> Vec<u16> {
    let mut different = Vec::new();
    for port in mapped {
        if !different.contains(port) {
            different.push(*port);
        }
    }
    different
}

/// From the mapped ports of flows in the order in which they were made. `local` is the socket's own port.
pub(super) fn pattern(local: u16, mapped: &[u16]) -> PortPattern {
    let different = different(mapped);
    if different.len() < 2 {
        return PortPattern::Preserving;
    }
    if mapped.iter().all(|port| *port == local) {
        return PortPattern::Preserving;
    }
    let steps: Vec<i16> =
        different.array_windows().map(|[one, next]| next.wrapping_sub(*one) as i16).collect();
    let one_sign = steps.iter().all(|step| *step > 0) || steps.iter().all(|step| *step < 0);
    let near = steps.iter().all(|step| step.unsigned_abs() <= NEAR.unsigned_abs());
    match steps.into_iter().min_by_key(|step| step.unsigned_abs()) {
        Some(step) if one_sign && near => PortPattern::Sequential(step),
        _ => PortPattern::Random,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert_eq!(pattern(5004, &[5004, 5004, 5004]), PortPattern::Preserving);
        assert_eq!(pattern(5004, &[40_000, 40_000]), PortPattern::Preserving);
        assert_eq!(pattern(5004, &[40_000, 40_001, 40_002, 40_003]), PortPattern::Sequential(1));
        // Somebody else's flows in between.
        assert_eq!(pattern(5004, &[40_000, 40_006, 40_008, 40_012]), PortPattern::Sequential(2));
        assert_eq!(pattern(5004, &[65_534, 65_535, 1, 2]), PortPattern::Sequential(1));
        assert_eq!(pattern(5004, &[40_000, 39_998, 39_996]), PortPattern::Sequential(-2));
        // One port per address: the fourth question sees the first port again.
        assert_eq!(pattern(5004, &[40_000, 40_001, 40_001, 40_000]), PortPattern::Sequential(1));
        assert_eq!(pattern(5004, &[40_000, 12_001, 33_002]), PortPattern::Random);
        assert_eq!(pattern(5004, &[40_000, 40_005, 40_003]), PortPattern::Random);
    }
}
