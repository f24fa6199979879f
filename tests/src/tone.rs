//! Tones: what a phone plays, and whether it is in the other's recording. Files are RIFF WAVE, 16 bit mono PCM.

use std::f64::consts::TAU;
use std::fs;
use std::path::Path;

use crate::{Failure, Result};

/// How long a phone's file lasts, seconds: baresip falls silent at its end.
pub const PLAYS: f64 = 180.0;

/// Samples of one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Samples per second.
    pub rate: u32,
    /// Linear samples, -1 to 1.
    pub samples: Vec<f64>,
}

/// A sine of half the full scale.
pub fn sine(rate: u32, hertz: f64, seconds: f64) -> Recording {
    let count = (f64::from(rate) * seconds) as u32;
    let samples = (0..count).map(|n| 0.5 * (TAU * hertz * f64::from(n) / f64::from(rate)).sin()).collect();
    Recording { rate, samples }
}

/// A stretch of speech and the silence after it, seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// Speech.
    pub speaks: f64,
    /// Silence.
    pub rests: f64,
}

/// Turns of speech, one after the other: a tone whose level moves as that of syllables does. A steady one a voice activity detection
/// takes for noise after some seconds, since it adapts to what it hears.
pub fn speech(rate: u32, hertz: f64, turns: &[Turn]) -> Recording {
    let mut samples = Vec::new();
    let samples_of = |seconds: f64| (f64::from(rate) * seconds) as usize;
    for turn in turns {
        let level = |n: usize| 0.1 + 0.4 * (TAU * 2.0 * n as f64 / f64::from(rate)).sin().abs();
        let wave = |n: usize| level(n) * (TAU * hertz * n as f64 / f64::from(rate)).sin();
        samples.extend((0..samples_of(turn.speaks)).map(wave));
        samples.resize(samples.len() + samples_of(turn.rests), 0.0);
    }
    Recording { rate, samples }
}

impl Recording {
    /// Writes the recording as a WAVE file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let data = self.samples.len() as u32 * 2;
        let mut file = Vec::with_capacity(44 + data as usize);
        file.extend_from_slice(b"RIFF");
        file.extend_from_slice(&(36 + data).to_le_bytes());
        file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        file.extend_from_slice(&self.rate.to_le_bytes());
        file.extend_from_slice(&(self.rate * 2).to_le_bytes());
        file.extend_from_slice(b"\x02\0\x10\0data");
        file.extend_from_slice(&data.to_le_bytes());
        for sample in &self.samples {
            file.extend_from_slice(&((sample * 32767.0) as i16).to_le_bytes());
        }
        Ok(fs::write(path, file)?)
    }

    /// Reads a 16-bit WAVE file; of several channels the first. A recorder that still runs, or was killed, leaves a
    /// wrong data length: then the data goes to the end of the file.
    pub fn read(path: &Path) -> Result<Self> {
        let file = fs::read(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
        parse(&file).ok_or_else(|| Failure(format!("{}: no 16-bit PCM WAVE file", path.display())))
    }

    /// Reads the samples behind a header that its recorder has not filled in yet.
    pub fn read_without_header(path: &Path, rate: u32) -> Result<Self> {
        let file = fs::read(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
        let samples = file.get(44..).unwrap_or_default().chunks_exact(2);
        let samples = samples.map(|s| f64::from(i16::from_le_bytes([s[0], s[1]])) / 32768.0).collect();
        Ok(Recording { rate, samples })
    }

    /// The last `seconds` of the recording.
    pub fn last(&self, seconds: f64) -> Recording {
        let count = (f64::from(self.rate) * seconds) as usize;
        let from = self.samples.len().saturating_sub(count);
        Recording { rate: self.rate, samples: self.samples.get(from..).unwrap_or_default().to_vec() }
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate.max(1))
    }

    /// The share of the recording's energy at a frequency, 0 to 1 (Goertzel, over blocks of 50 ms; the best fifth of
    /// the blocks counts, so that silence before an answer does not hide the tone).
    pub fn share_of(&self, hertz: f64) -> f64 {
        let block = (self.rate / 20).max(1) as usize;
        let mut shares: Vec<f64> = self
            .samples
            .chunks_exact(block)
            .map(|samples| goertzel(samples, hertz, f64::from(self.rate)))
            .collect();
        shares.sort_by(|a, b| b.total_cmp(a));
        let count = shares.len().div_ceil(5);
        shares.iter().take(count).sum::<f64>() / count.max(1) as f64
    }

    /// The longest stretch without a tone of this frequency, between two with it, seconds; in steps of 10 ms.
    pub fn longest_hole(&self, hertz: f64) -> f64 {
        let block = (self.rate / 100).max(1) as usize;
        let blocks = self.samples.chunks_exact(block);
        let heard =
            blocks.enumerate().filter(|(_, samples)| goertzel(samples, hertz, f64::from(self.rate)) > 0.6);
        let heard: Vec<usize> = heard.map(|(index, _)| index).collect();
        let longest = heard.windows(2).map(|pair| pair[1] - pair[0] - 1).max().unwrap_or_default();
        longest as f64 / 100.0
    }

    /// What was recorded after the first `seconds`.
    pub fn after(&self, seconds: f64) -> Recording {
        let from = (f64::from(self.rate) * seconds) as usize;
        Recording { rate: self.rate, samples: self.samples.get(from..).unwrap_or_default().to_vec() }
    }

    /// Whether a tone of this frequency is heard. Companding and jitter buffers cost some of its purity.
    pub fn has_tone(&self, hertz: f64) -> bool {
        self.share_of(hertz) > 0.6
    }
}

fn parse(file: &[u8]) -> Option<Recording> {
    if file.get(..4)? != b"RIFF" || file.get(8..12)? != b"WAVE" {
        return None;
    }
    let (mut at, mut rate, mut channels) = (12usize, 0u32, 1usize);
    loop {
        let kind = file.get(at..at + 4)?;
        let length = u32::from_le_bytes(file.get(at + 4..at + 8)?.try_into().ok()?) as usize;
        let body = file.get(at + 8..)?;
        if kind == b"fmt " {
            channels = usize::from(u16::from_le_bytes(body.get(2..4)?.try_into().ok()?)).max(1);
            rate = u32::from_le_bytes(body.get(4..8)?.try_into().ok()?);
            if body.get(14..16)? != [16, 0] {
                return None;
            }
        } else if kind == b"data" {
            let length = if length == 0 || length > body.len() { body.len() } else { length };
            let samples = body.get(..length)?.chunks_exact(2 * channels);
            let samples = samples.map(|s| f64::from(i16::from_le_bytes([s[0], s[1]])) / 32768.0).collect();
            return (rate > 0).then_some(Recording { rate, samples });
        }
        at = at.checked_add(8 + length + length % 2)?;
    }
}

fn goertzel(samples: &[f64], hertz: f64, rate: f64) -> f64 {
    let factor = 2.0 * (TAU * hertz / rate).cos();
    let (mut before, mut last) = (0.0, 0.0);
    let mut energy = 0.0;
    for sample in samples {
        (before, last) = (last, sample + factor * last - before);
        energy += sample * sample;
    }
    let power = last * last + before * before - factor * last * before;
    if energy < 1e-6 * samples.len() as f64 { 0.0 } else { 2.0 * power / (energy * samples.len() as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_found_and_another_is_not() {
        let tone = sine(8000, 440.0, 1.0);
        assert!(tone.has_tone(440.0));
        assert!(!tone.has_tone(660.0));
    }

    #[test]
    fn a_hole_is_as_long_as_the_tone_is_missing() {
        let mut tone = sine(8000, 600.0, 1.0);
        assert_eq!(tone.longest_hole(600.0), 0.0);
        tone.samples[4000..4800].fill(0.0);
        assert_eq!(tone.longest_hole(600.0), 0.1);
        assert_eq!(tone.after(0.55).longest_hole(600.0), 0.0);
    }

    #[test]
    fn silence_has_no_tone() {
        assert!(!Recording { rate: 8000, samples: vec![0.0; 8000] }.has_tone(440.0));
    }

    #[test]
    fn a_written_file_reads_back() {
        let path = std::env::temp_dir().join(format!("tone-{}.wav", std::process::id()));
        sine(16000, 900.0, 0.5).write(&path).unwrap();
        let back = Recording::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((back.rate, back.samples.len()), (16000, 8000));
        assert!(back.has_tone(900.0));
    }
}
