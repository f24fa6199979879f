//! Phones that take a command a line and tell an event a line: ours and PJSIP's.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use memchr::memmem;

use crate::phone::{Event, Phone};
use crate::tone::Recording;
use crate::{Process, Result};

/// The program behind the lines.
#[derive(Debug)]
pub struct Console {
    program: Process,
    /// Where it keeps what it hears.
    pub(crate) folder: PathBuf,
    cursor: usize,
}

impl Console {
    pub(crate) fn new(program: Process, folder: PathBuf) -> Self {
        Self { program, folder, cursor: 0 }
    }

    /// Gives a command.
    pub(crate) fn command(&mut self, command: &str) -> Result<()> {
        self.program.write(format!("{command}\n").as_bytes())
    }

    pub(crate) fn output(&self) -> String {
        self.program.output()
    }
}

/// In what such phones differ.
pub trait Lines: Debug + Send {
    /// What refuses the call that rings.
    const REFUSE: &'static str;
    /// Its program.
    fn console(&self) -> &Console;
    /// Its program, to speak to.
    fn console_mut(&mut self) -> &mut Console;
    /// How an event of this name begins.
    fn mark(name: &str) -> String;
    /// The command that sends a digit.
    fn pressing(digit: char) -> Result<String>;
    /// What it has heard in its latest call.
    fn recording(&self) -> Result<Recording>;
}

impl<P: Lines> Phone for P {
    fn registered(&mut self, within: Duration) -> Result<()> {
        self.console_mut().program.says(P::mark("registered").trim_start(), within)
    }

    fn dial(&mut self, uri: &str) -> Result<()> {
        self.console_mut().command(&format!("dial {uri}"))
    }

    fn answer(&mut self) -> Result<()> {
        self.console_mut().command("answer")
    }

    fn refuse(&mut self) -> Result<()> {
        self.console_mut().command(P::REFUSE)
    }

    fn hang_up(&mut self) -> Result<()> {
        self.console_mut().command("hangup")
    }

    fn hold(&mut self) -> Result<()> {
        self.console_mut().command("hold")
    }

    fn resume(&mut self) -> Result<()> {
        self.console_mut().command("resume")
    }

    fn press(&mut self, digit: char) -> Result<()> {
        self.console_mut().command(&P::pressing(digit)?)
    }

    fn transfer(&mut self, uri: &str) -> Result<()> {
        self.console_mut().command(&format!("transfer {uri}"))
    }

    fn join(&mut self) -> Result<()> {
        self.console_mut().command("join")
    }

    fn wait(&mut self, event: Event, within: Duration) -> Result<()> {
        let name = match event {
            Event::Incoming => "incoming",
            Event::Ringing => "ringing",
            Event::Established => "established",
            Event::Ended => "ended",
        };
        let text = P::mark(name);
        let find = |said: &[u8]| Some(memmem::find(said, text.as_bytes())? + text.len());
        let Console { program, cursor, .. } = self.console_mut();
        program.says_next(name, cursor, within, find)
    }

    fn trace(&self) -> String {
        self.console().output()
    }

    fn heard(&self) -> Result<Recording> {
        self.recording()
    }

    fn id(&self) -> u32 {
        self.console().program.id()
    }
}
