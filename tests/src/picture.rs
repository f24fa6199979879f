//! A picture of one call: what each ear hears and by which way, what the relay carries, and what happened when. SVG.

use std::fmt::Write as _;

/// Pixels.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 24.0;
const LANE: f64 = 16.0;
/// What one RTP packet carries, s.
const PACKET: f64 = 0.02;
const RELAYED: &str = "#3b6fb6";
const DIRECT: &str = "#2f9e6e";
const HAPPENED: &str = "#b5463c";
const INK: &str = "#333";

/// What one party hears.
#[derive(Debug, Clone)]
pub struct Ear {
    /// Who.
    pub name: String,
    /// Each RTP packet: seconds since the answer, and whether the relay sent it.
    pub arrivals: Vec<(f64, bool)>,
    /// The longest pause until the cut, and by it. ms
    pub pauses: [u128; 2],
}

/// A call to be drawn; times in seconds since its answer.
#[derive(Debug, Clone)]
pub struct Picture {
    /// What is above it.
    pub title: String,
    /// Both parties.
    pub ears: [Ear; 2],
    /// What happened, in order.
    pub marks: Vec<(f64, String)>,
    /// RTP packets that reached the relay, by second.
    pub load: Vec<usize>,
    /// When the call ended.
    pub end: f64,
}

impl Picture {
    /// The picture as SVG.
    pub fn svg(&self) -> String {
        let heights = [60.0 + 16.0 * self.marks.len() as f64, 2.0 * (3.0 * LANE + 26.0), 96.0];
        let height: f64 = heights.iter().sum::<f64>() + 34.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" \
             font-size=\"12\" fill=\"{INK}\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        text(
            &mut svg,
            (12.0, 24.0),
            "start",
            &format!("<tspan font-size=\"15\">{}</tspan>", escaped(&self.title)),
        );
        let mut top = 60.0;
        let bottom = height - 34.0;
        for (index, (at, what)) in self.marks.iter().enumerate() {
            let (x, y) = (self.x(*at), top + 16.0 * index as f64);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{bottom:.1}\" stroke=\"{HAPPENED}\" stroke-dasharray=\"2 3\"/>",
                y - 4.0
            );
            let is_late = x > WIDTH * 0.7;
            let (x, anchor) = if is_late { (x - 5.0, "end") } else { (x + 5.0, "start") };
            text(&mut svg, (x, y), anchor, &format!("{at:.2} s  {}", escaped(what)));
        }
        top += 16.0 * self.marks.len() as f64;
        for ear in &self.ears {
            self.hears(&mut svg, ear, top);
            top += 3.0 * LANE + 26.0;
        }
        self.carried(&mut svg, top);
        self.axis(&mut svg, bottom);
        svg.push_str("</svg>\n");
        svg
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + at.clamp(0.0, self.end) / self.end.max(1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// A lane for each way: packets beside each other are a bar, what is missing is a hole in it.
    fn hears(&self, svg: &mut String, ear: &Ear, top: f64) {
        text(svg, (12.0, top + LANE), "start", &format!("{} hears", escaped(&ear.name)));
        let [before, cut] = ear.pauses;
        let pauses = format!("longest pause {before} ms; {cut} ms by the cut");
        text(svg, (LEFT, top + 3.0 * LANE + 2.0), "start", &pauses);
        for (lane, (by_relay, colour, way)) in
            [(true, RELAYED, "by the relay"), (false, DIRECT, "directly")].into_iter().enumerate()
        {
            let y = top + LANE * lane as f64;
            text(svg, (LEFT - 8.0, y + LANE - 4.0), "end", way);
            for (from, to) in spans(&ear.arrivals, by_relay) {
                let (x, width) = (self.x(from), (self.x(to) - self.x(from)).max(0.5));
                let _ = writeln!(
                    svg,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                    LANE - 3.0
                );
            }
        }
    }

    fn carried(&self, svg: &mut String, top: f64) {
        let (room, floor) = (64.0, top + 76.0);
        let most = self.load.iter().copied().max().unwrap_or(0).max(1) as f64;
        text(svg, (12.0, top + 24.0), "start", "the relay carries,");
        text(svg, (12.0, top + 40.0), "start", "packets/s");
        for (second, packets) in self.load.iter().enumerate() {
            let from = second as f64;
            let (x, width) = (self.x(from), self.x(from + 1.0) - self.x(from) - 2.0);
            let high = *packets as f64 / most * room;
            if width > 4.0 {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{high:.1}\" fill=\"{RELAYED}\" opacity=\"0.55\"/>",
                    floor - high
                );
                text(svg, (x + width / 2.0, floor - high - 3.0), "middle", &packets.to_string());
            }
        }
    }

    fn axis(&self, svg: &mut String, y: f64) {
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{INK}\"/>",
            WIDTH - RIGHT
        );
        for second in 0..=self.end as u32 {
            text(svg, (self.x(second.into()), y + 16.0), "middle", &second.to_string());
        }
        text(svg, (12.0, y + 16.0), "start", "s since the answer");
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, what: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Times over which packets came one way without one missing; a packet that is late by half of what it carries is.
fn spans(arrivals: &[(f64, bool)], by_relay: bool) -> Vec<(f64, f64)> {
    let mut spans: Vec<(f64, f64)> = Vec::new();
    for at in arrivals.iter().filter(|one| one.1 == by_relay && one.0 >= 0.0).map(|one| one.0) {
        match spans.last_mut() {
            Some(last) if at <= last.1 + PACKET / 2.0 => last.1 = at + PACKET,
            _ => spans.push((at, at + PACKET)),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ear(pauses: [u128; 2]) -> Ear {
        // Relayed for a second, direct for one, 180 ms of nothing, relayed for the rest.
        let times = (0..150).map(f64::from).map(|packet| packet * PACKET);
        let arrivals = times.filter(|at| !(2.0..2.18).contains(at)).map(|at| (at, !(1.0..2.0).contains(&at)));
        Ear { name: "a".into(), arrivals: arrivals.collect(), pauses }
    }

    #[test]
    fn each_way_has_its_bars_and_a_pause_is_a_hole() {
        let ear = ear([20, 180]);
        let [relayed, direct] = [true, false].map(|by_relay| spans(&ear.arrivals, by_relay));
        assert_eq!((relayed.len(), direct.len()), (2, 1));
        assert!((direct[0].0 - 1.0).abs() < 0.001 && (direct[0].1 - 2.0).abs() < 0.001);
        assert!((relayed[1].0 - 2.18).abs() < 0.011, "{relayed:?}");
    }

    #[test]
    fn all_that_is_told_stands_in_the_picture() {
        let picture = Picture {
            title: "a < b".into(),
            ears: [ear([20, 180]), ear([21, 181])],
            marks: vec![(1.0, "direct".into()), (2.0, "the path is cut".into())],
            load: vec![50, 0, 41],
            end: 3.0,
        };
        let svg = picture.svg();
        for part in ["a &lt; b", "1.00 s  direct", "2.00 s  the path is cut", "180 ms by the cut", ">41<"] {
            assert!(svg.contains(part), "{part}\n{svg}");
        }
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
    }
}
