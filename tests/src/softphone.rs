//! Drives the project's own `phone`: commands on its standard input, its timeline as JSON.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::console::{Console, Lines};
use crate::phone::Account;
use crate::tone::Recording;
use crate::{Failure, Lab, Result};

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
pub struct Softphone(Console);

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
        Ok(Softphone(Console::new(program, folder)))
    }

    /// Gives a command.
    pub fn command(&mut self, command: &str) -> Result<()> {
        self.0.command(command)
    }

    /// What has happened so far, in order: objects with `time` (seconds since its start) and `event`.
    pub fn timeline(&self) -> Vec<Value> {
        let said = self.0.output();
        said.lines()
            .filter(|line| line.starts_with('{'))
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }
}

impl Lines for Softphone {
    const REFUSE: &'static str = "refuse";

    fn console(&self) -> &Console {
        &self.0
    }

    fn console_mut(&mut self) -> &mut Console {
        &mut self.0
    }

    fn mark(name: &str) -> String {
        format!("\"event\":\"{name}\"")
    }

    fn pressing(_: char) -> Result<String> {
        Err(Failure("the softphone sends no digits".into()))
    }

    fn recording(&self) -> Result<Recording> {
        let mut files: Vec<PathBuf> = fs::read_dir(&self.0.folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|suffix| suffix == "wav"))
            .collect();
        files.sort_by_key(|path| fs::metadata(path).and_then(|data| data.created()).ok());
        let latest = files.last().ok_or_else(|| Failure("phone has recorded nothing".into()))?;
        Recording::read(latest)
    }
}
