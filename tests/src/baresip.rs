//! Drives baresip 1.0: configuration folder, commands over its control socket, recordings of what it hears.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::tone::{Recording, sine};
use crate::{Failure, Lab, Process, Result};

/// What a phone is to be: the same for every driver.
#[derive(Debug, Clone)]
pub struct Account {
    /// User part.
    pub user: String,
    /// Password for digest.
    pub password: String,
    /// Domain, or address of the registrar.
    pub domain: String,
    /// "udp", "tcp" or "tls".
    pub transport: &'static str,
    /// Registration's length in seconds; zero registers nothing.
    pub expires: u32,
    /// Answers calls by itself.
    pub answers: bool,
}

/// A running baresip.
#[derive(Debug)]
pub struct Baresip {
    program: Process,
    control: Process,
    folder: PathBuf,
    commands: u32,
}

impl Baresip {
    /// Starts a phone on a host, listening at `address`, that plays a tone of `hertz` in every call.
    pub fn start(lab: &Lab, host: &str, address: &str, account: &Account, hertz: f64) -> Result<Self> {
        let folder = lab.folder().join(format!("baresip-{host}"));
        let heard = folder.join("heard");
        fs::create_dir_all(&heard)?;
        sine(8000, hertz, 60.0).write(&folder.join("tone.wav"))?;
        let modules = fs::read_dir("/usr/lib/baresip/modules")
            .map(|_| "/usr/lib/baresip/modules")
            .map_err(|_| Failure("baresip's modules are not in /usr/lib/baresip/modules".into()))?;
        let folder_text = folder.display();
        fs::write(
            folder.join("config"),
            format!(
                "sip_listen {address}:5060\naudio_player aubridge,sink\n\
                 audio_source aufile,{folder_text}/tone.wav\naudio_alert aubridge,sink\nausrc_srate 8000\n\
                 auplay_srate 8000\nausrc_channels 1\nauplay_channels 1\njitter_buffer_delay 1-5\n\
                 snd_path {}\nmodule_path {modules}\nmodule g711.so\nmodule aubridge.so\n\
                 module aufile.so\nmodule sndfile.so\nmodule_app account.so\nmodule_app menu.so\n\
                 module_app ctrl_tcp.so\nctrl_tcp_listen 127.0.0.1:4444\n",
                heard.display()
            ),
        )?;
        let Account { user, password, domain, transport, expires, answers } = account;
        let answers = if *answers { "auto" } else { "manual" };
        fs::write(
            folder.join("accounts"),
            format!(
                "<sip:{user}@{domain};transport={transport}>;auth_user={user};auth_pass={password};regint={expires};\
                 answermode={answers};audio_codecs=PCMU,PCMA\n"
            ),
        )?;
        fs::write(folder.join("contacts"), "")?;
        let path = folder.to_string_lossy().into_owned();
        let program = lab.start(host, &format!("baresip-{host}"), &["baresip", "-v", "-f", &path])?;
        program.says("baresip is ready", Duration::from_secs(10))?;
        // The control socket is inside the namespace, so a shell there carries it to our pipe.
        let carry = "exec 3<>/dev/tcp/127.0.0.1/4444; cat <&3 & exec cat >&3";
        let control = lab.start(host, &format!("baresip-{host}-control"), &["bash", "-c", carry])?;
        Ok(Baresip { program, control, folder, commands: 0 })
    }

    /// Gives a command: `dial`, `hangup`, `accept`, `hold`, `resume`, `transfer`, ...
    pub fn command(&mut self, command: &str, parameters: &str) -> Result<()> {
        self.commands += 1;
        let token = format!("t{}", self.commands);
        let text = json!({ "command": command, "params": parameters, "token": &token }).to_string();
        self.control.write(format!("{}:{text},", text.len()).as_bytes())?;
        self.control.says(&format!("\"token\":\"{token}\""), Duration::from_secs(5))
    }

    /// Waits for an event of the control interface, such as `CALL_ESTABLISHED`, the n-th since start.
    pub fn event(&self, event: &str, nth: usize, within: Duration) -> Result<()> {
        self.control.says_times(&format!("\"type\":\"{event}\""), nth, within)
    }

    /// Waits until the phone is registered.
    pub fn registered(&self) -> Result<()> {
        self.program.says("200 OK", Duration::from_secs(10))
    }

    /// What the program and its control interface have said.
    pub fn output(&self) -> String {
        self.program.output() + &self.control.output()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// What the phone has heard in its latest call (decoded, before its player).
    pub fn heard(&self) -> Result<Recording> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.folder.join("heard"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().ends_with("-dec.wav"))
            .collect();
        files.sort();
        let latest = files.last().ok_or_else(|| Failure("baresip has recorded nothing".into()))?;
        Recording::read(latest)
    }
}
