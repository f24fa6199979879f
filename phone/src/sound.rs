//! What is said, and where what is heard goes. 8,000 samples a second, mono.

use std::f64::consts::TAU;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use crate::options;

/// Samples a second.
pub(crate) const RATE: u32 = 8000;
/// The file's header is brought up to date after so many samples, so that whoever reads it meanwhile, or after a kill, can.
const FLUSH: u32 = RATE / 4;

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}; WAV files are read at 16 bit, 8,000 Hz, mono", path.display())]
pub(crate) struct Unusable {
    path: PathBuf,
    reason: String,
}

impl Unusable {
    fn of(path: &Path, reason: impl ToString) -> Self {
        Self { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// What is said in every call, from its start.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Nothing is sent.
    Nothing,
    Silence,
    Tone {
        hertz: f64,
        at: u64,
    },
    File {
        samples: std::sync::Arc<[i16]>,
        at: usize,
    },
}

impl Source {
    pub(crate) fn open(options: &options::Source) -> Result<Self, Unusable> {
        let Some(path) = &options.play else {
            let quiet = if options.silence { Self::Nothing } else { Self::Silence };
            return Ok(options.tone.map_or(quiet, |hertz| Self::Tone { hertz, at: 0 }));
        };
        let mut reader = hound::WavReader::open(path).map_err(|error| Unusable::of(path, error))?;
        let format = reader.spec();
        if (format.channels, format.sample_rate, format.bits_per_sample) != (1, RATE, 16) {
            let what = format!(
                "{} bit, {} Hz, {} channels",
                format.bits_per_sample, format.sample_rate, format.channels
            );
            return Err(Unusable::of(path, what));
        }
        let samples: Result<Vec<i16>, _> = reader.samples().collect();
        let samples = samples.map_err(|error| Unusable::of(path, error))?;
        if samples.is_empty() {
            return Err(Unusable::of(path, "it is empty"));
        }
        Ok(Self::File { samples: samples.into(), at: 0 })
    }

    /// Whether there is something to say.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Silence)
    }

    /// The next so many samples; `None`: they are not sent.
    pub(crate) fn next(&mut self, count: usize) -> Option<Vec<i16>> {
        Some(match self {
            Self::Nothing => return None,
            Self::Silence => vec![0; count],
            Self::Tone { hertz, at } => {
                let from = *at;
                *at += count as u64;
                let sample = |n: u64| (16_000.0 * (TAU * *hertz * n as f64 / f64::from(RATE)).sin()) as i16;
                (from..*at).map(sample).collect()
            }
            Self::File { samples, at } => {
                let taken = (0..count).map(|n| samples[(*at + n) % samples.len()]).collect();
                *at = (*at + count) % samples.len();
                taken
            }
        })
    }
}

/// A recording under way.
pub(crate) struct Recorder {
    path: PathBuf,
    writer: hound::WavWriter<BufWriter<File>>,
    unflushed: u32,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> Result<Self, Unusable> {
        let format = hound::WavSpec {
            channels: 1,
            sample_rate: RATE,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let writer = hound::WavWriter::create(path, format).map_err(|error| Unusable::of(path, error))?;
        Ok(Self { path: path.to_owned(), writer, unflushed: 0 })
    }

    pub(crate) fn write(&mut self, samples: &[i16]) -> Result<(), Unusable> {
        let fault = |error| Unusable::of(&self.path, error);
        for sample in samples {
            self.writer.write_sample(*sample).map_err(fault)?;
        }
        self.unflushed += samples.len() as u32;
        if self.unflushed >= FLUSH {
            self.unflushed = 0;
            self.writer.flush().map_err(fault)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_can_be_played_and_a_file_begins_again_at_its_end() {
        let path = std::env::temp_dir().join(format!("phone-sound-{}.wav", std::process::id()));
        let mut recorder = Recorder::create(&path).unwrap();
        recorder.write(&[1, 2, 3]).unwrap();
        drop(recorder);
        let options = options::Source { play: Some(path.clone()), tone: None, silence: false };
        let mut source = Source::open(&options).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(source.next(5).unwrap(), [1, 2, 3, 1, 2]);
        assert_eq!(source.next(2).unwrap(), [3, 1]);
    }

    #[test]
    fn a_tone_goes_on_where_it_stopped() {
        let whole = Source::Tone { hertz: 440.0, at: 0 }.next(320).unwrap();
        let mut tone = Source::Tone { hertz: 440.0, at: 0 };
        assert_eq!([tone.next(160).unwrap(), tone.next(160).unwrap()].concat(), whole);
    }
}
