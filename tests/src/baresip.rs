//! Drives baresip 1.0: configuration folder, commands over its control socket, recordings of what it hears.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use memchr::memmem;
use serde_json::json;

use crate::phone::{Account, Event, Phone};
use crate::tone::Recording;
use crate::{Failure, Lab, Process, Result};

/// How long a command may take to be acknowledged.
const SOON: Duration = Duration::from_secs(15);

/// A running baresip.
#[derive(Debug)]
pub struct Baresip {
    program: Process,
    control: Process,
    folder: PathBuf,
    commands: u32,
    cursor: usize,
}

impl Baresip {
    /// Starts a phone on a host, listening at `address`, that plays a tone of `hertz` in every call.
    pub fn start(lab: &Lab, host: &str, address: &str, account: &Account, hertz: f64) -> Result<Self> {
        let folder = lab.folder().join(format!("baresip-{host}"));
        let heard = folder.join("heard");
        fs::create_dir_all(&heard)?;
        account.recording(hertz).write(&folder.join("tone.wav"))?;
        let modules = fs::read_dir("/usr/lib/baresip/modules")
            .map(|_| "/usr/lib/baresip/modules")
            .map_err(|_| Failure("baresip's modules are not in /usr/lib/baresip/modules".into()))?;
        let folder_text = folder.display();
        let listen = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        fs::write(
            folder.join("config"),
            format!(
                "sip_listen {listen}:5060\naudio_player aubridge,sink\n\
                 audio_source aufile,{folder_text}/tone.wav\naudio_alert aubridge,sink\nausrc_srate 8000\n\
                 auplay_srate 8000\nausrc_channels 1\nauplay_channels 1\njitter_buffer_delay 1-5\n\
                 call_max_calls {}\ncall_local_timeout {}\nrtp_stats yes\n\
                 snd_path {}\nmodule_path {modules}\nmodule g711.so\nmodule srtp.so\nmodule aubridge.so\n\
                 module aufile.so\nmodule sndfile.so\nmodule uuid.so\nmodule_app account.so\nmodule_app menu.so\n\
                 module_app ctrl_tcp.so\nctrl_tcp_listen 127.0.0.1:4444\n",
                account.calls,
                account.rings,
                heard.display()
            ),
        )?;
        let Account { user, password, domain, transport, expires, .. } = account;
        fs::write(
            folder.join("accounts"),
            format!(
                "<sip:{user}@{domain};transport={transport}>;auth_user={user};auth_pass={password};regint={expires};\
                 outbound=\"{}\";answermode=manual;audio_codecs=PCMU,PCMA{}\n",
                account.proxy_uri(),
                if account.srtp { ";mediaenc=srtp-mand" } else { "" }
            ),
        )?;
        fs::write(folder.join("contacts"), "")?;
        let path = folder.to_string_lossy().into_owned();
        let family = if address.contains(':') { "-6" } else { "-4" };
        let argv = ["baresip", family, "-s", "-v", "-f", &path];
        let program = lab.start(host, &format!("baresip-{host}"), &argv)?;
        program.says("baresip is ready", SOON)?;
        // The control socket is inside the namespace, so a shell there carries it to our pipe.
        let carry = "exec 3<>/dev/tcp/127.0.0.1/4444; cat <&3 & exec cat >&3";
        let control = lab.start(host, &format!("baresip-{host}-control"), &["bash", "-c", carry])?;
        let mut phone = Baresip { program, control, folder, commands: 0, cursor: 0 };
        // Events before the connection would be lost: an answer shows that there is one.
        phone.command("listcalls", "")?;
        Ok(phone)
    }

    /// Gives a command: `dial`, `hangup`, `accept`, `hold`, `resume`, `transfer`, ...
    pub fn command(&mut self, command: &str, parameters: &str) -> Result<()> {
        self.commands += 1;
        let token = format!("t{}", self.commands);
        let text = json!({ "command": command, "params": parameters, "token": &token }).to_string();
        self.control.write(format!("{}:{text},", text.len()).as_bytes())?;
        self.control.says(&format!("\"token\":\"{token}\""), SOON)
    }
}

impl Phone for Baresip {
    fn registered(&mut self, within: Duration) -> Result<()> {
        // "reg: sip:... {0/UDP/v4} 200 OK () [1 binding]"
        self.program.says(" binding", within)
    }

    fn dial(&mut self, uri: &str) -> Result<()> {
        self.command("dial", uri)
    }

    fn answer(&mut self) -> Result<()> {
        self.command("accept", "")
    }

    fn refuse(&mut self) -> Result<()> {
        self.command("hangup", "")
    }

    fn hang_up(&mut self) -> Result<()> {
        self.command("hangup", "")
    }

    fn hold(&mut self) -> Result<()> {
        self.command("hold", "")
    }

    fn resume(&mut self) -> Result<()> {
        self.command("resume", "")
    }

    fn press(&mut self, digit: char) -> Result<()> {
        self.command("sndcode", &digit.to_string())
    }

    fn transfer(&mut self, uri: &str) -> Result<()> {
        self.command("transfer", uri)
    }

    fn join(&mut self) -> Result<()> {
        Err(Failure("baresip 1.0 has no attended transfer".into()))
    }

    fn wait(&mut self, event: Event, within: Duration) -> Result<()> {
        let name = match event {
            Event::Incoming => "CALL_INCOMING",
            Event::Ringing => "CALL_RINGING",
            Event::Established => "CALL_ESTABLISHED",
            Event::Ended => "CALL_CLOSED",
        };
        let text = format!("\"type\":\"{name}\"");
        let find = |said: &[u8]| Some(memmem::find(said, text.as_bytes())? + text.len());
        self.control.says_next(name, &mut self.cursor, within, find)
    }

    fn trace(&self) -> String {
        self.program.output()
    }

    /// Decoded, before its player. Its recorder stops for good at its first hold.
    fn heard(&self) -> Result<Recording> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.folder.join("heard"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().ends_with("-dec.wav"))
            .collect();
        files.sort();
        let latest = files.last().ok_or_else(|| Failure("baresip has recorded nothing".into()))?;
        Recording::read(latest)
    }

    fn id(&self) -> u32 {
        self.program.id()
    }
}
