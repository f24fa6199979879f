//! One figure for a path, so that two can be compared: R of the E-model (ITU-T G.107), for G.711 with concealment.

/// `delay` one way and `jitter` in milliseconds, `loss` 0 to 1. 0 (useless) to 93.2.
pub(crate) fn rating(delay: f64, jitter: f64, loss: f64) -> f64 {
    let delay = delay + 2.0 * jitter;
    let percent = loss * 100.0;
    let impairment_delay = 0.024 * delay + 0.11 * (delay - 177.3).max(0.0);
    let impairment_loss = 95.0 * percent / (percent + 25.1);
    (93.2 - impairment_delay - impairment_loss).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_jitter_and_loss_each_make_a_path_worse() {
        let good = rating(20.0, 1.0, 0.0);
        assert!((92.0..93.2).contains(&good));
        assert!(rating(300.0, 1.0, 0.0) < good - 5.0);
        assert!(rating(20.0, 120.0, 0.0) < good - 5.0);
        assert!(rating(20.0, 1.0, 0.03) < good - 5.0);
        assert!(rating(5000.0, 1.0, 1.0) == 0.0);
    }
}
