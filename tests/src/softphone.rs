//! Drives the project's own `phone`: commands on its standard input, its timeline as JSON.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use memchr::memmem;
use serde_json::Value;

use crate::phone::{Account, Event, Phone};
use crate::tone::Recording;
use crate::{Failure, Lab, Process, Result};

/// The program: beside this one or a folder above it, or where PHONE_PROGRAM says.
pub fn program() -> String {
    crate::sbc::beside("phone", "PHONE_PROGRAM")
}

/// What a phone says in its calls.
#[derive(Debug, Clone, Copy)]
pub enum Voice {
    /// A tone of so many Hz.
    Tone(f64),
    /// Nothing: no packets of audio.
    Silence,
}

/// A running phone.
#[derive(Debug)]
pub struct Softphone {
    program: Process,
    folder: PathBuf,
    cursor: usize,
}

impl Softphone {
    /// Starts a phone on a host that plays a tone of `hertz` in every call.
    pub fn start(lab: &Lab, host: &str, account: &Account, hertz: f64) -> Result<Self> {
        Self::start_with(lab, host, account, Voice::Tone(hertz), &[])
    }

    /// The same with another voice and more options.
    pub fn start_with(lab: &Lab, host: &str, account: &Account, voice: Voice, more: &[&str]) -> Result<Self> {
        let folder = lab.folder().join(format!("phone-{host}"));
        fs::create_dir_all(&folder)?;
        let Account { user, password, domain, proxy, transport, expires, .. } = account;
        let (uri, expires) = (format!("sip:{user}:{password}@{domain}"), expires.to_string());
        let says = match voice {
            Voice::Tone(hertz) => format!("--tone={hertz}"),
            Voice::Silence => "--silence".to_owned(),
        };
        let (heard, program) = (folder.join("heard.wav").display().to_string(), program());
        let argv = [&program, "--register", &uri, "--registrar", proxy, "--transport", transport];
        let rest = ["--expires", &expires, &says, "--record", &heard, "--json", "--trace", "--trust-anybody"];
        let srtp: &[&str] = if account.srtp { &["--srtp", "require"] } else { &[] };
        let argv: Vec<&str> = argv.iter().chain(&rest).chain(srtp).chain(more).copied().collect();
        let program = lab.start(host, &format!("phone-{host}"), &argv)?;
        program.says("\"event\":\"started\"", Duration::from_secs(20))?;
        Ok(Softphone { program, folder, cursor: 0 })
    }

    /// Gives a command.
    pub fn command(&mut self, command: &str) -> Result<()> {
        self.program.write(format!("{command}\n").as_bytes())
    }

    /// What has happened so far, in order: objects with `time` (seconds since its start) and `event`.
    pub fn timeline(&self) -> Vec<Value> {
        let said = self.program.output();
        said.lines()
            .filter(|line| line.starts_with('{'))
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Phone for Softphone {
    fn registered(&mut self, within: Duration) -> Result<()> {
        self.program.says("\"event\":\"registered\"", within)
    }

    fn dial(&mut self, uri: &str) -> Result<()> {
        self.command(&format!("dial {uri}"))
    }

    fn answer(&mut self) -> Result<()> {
        self.command("answer")
    }

    fn refuse(&mut self) -> Result<()> {
        self.command("refuse")
    }

    fn hang_up(&mut self) -> Result<()> {
        self.command("hangup")
    }

    fn hold(&mut self) -> Result<()> {
        self.command("hold")
    }

    fn resume(&mut self) -> Result<()> {
        self.command("resume")
    }

    fn press(&mut self, _: char) -> Result<()> {
        Err(Failure("the softphone sends no digits".into()))
    }

    fn transfer(&mut self, uri: &str) -> Result<()> {
        self.command(&format!("transfer {uri}"))
    }

    fn join(&mut self) -> Result<()> {
        self.command("join")
    }

    fn wait(&mut self, event: Event, within: Duration) -> Result<()> {
        let name = match event {
            Event::Incoming => "incoming",
            Event::Ringing => "ringing",
            Event::Established => "established",
            Event::Ended => "ended",
        };
        let text = format!("\"event\":\"{name}\"");
        let find = |said: &[u8]| Some(memmem::find(said, text.as_bytes())? + text.len());
        self.program.says_next(name, &mut self.cursor, within, find)
    }

    fn trace(&self) -> String {
        self.program.output()
    }

    fn heard(&self) -> Result<Recording> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|suffix| suffix == "wav"))
            .collect();
        files.sort_by_key(|path| fs::metadata(path).and_then(|data| data.created()).ok());
        let latest = files.last().ok_or_else(|| crate::Failure("phone has recorded nothing".into()))?;
        Recording::read(latest)
    }

    fn id(&self) -> u32 {
        self.program.id()
    }
}
