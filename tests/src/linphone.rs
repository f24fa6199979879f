//! Drives linphonec 5.1: commands on standard input, files in place of a sound card.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::baresip::Account;
use crate::tone::{Recording, sine};
use crate::{Lab, Process, Result};

/// A running linphonec.
#[derive(Debug)]
pub struct Linphone {
    program: Process,
    folder: PathBuf,
}

impl Linphone {
    /// Starts a phone on a host that plays a tone of `hertz` in every call and records what it hears.
    pub fn start(lab: &Lab, host: &str, account: &Account, hertz: f64) -> Result<Self> {
        let folder = lab.folder().join(format!("linphone-{host}"));
        fs::create_dir_all(folder.join(".local/share/linphone"))?;
        sine(8000, hertz, 60.0).write(&folder.join("tone.wav"))?;
        fs::write(folder.join("linphonerc"), configuration(account))?;
        let home = folder.to_string_lossy().into_owned();
        let configuration = format!("{home}/linphonerc");
        let argv = ["stdbuf", "-oL", "linphonec", "-c", &configuration, "-d", "0"];
        let environment = [("HOME", home.as_str()), ("TERM", "dumb")];
        let program = lab.start_with(host, &format!("linphone-{host}"), &argv, &environment)?;
        let mut phone = Linphone { program, folder };
        phone.command("soundcard use files")?;
        phone.command(&format!("play {home}/tone.wav"))?;
        phone.command(&format!("record {home}/heard.wav"))?;
        if account.answers {
            phone.command("autoanswer enable")?;
        }
        Ok(phone)
    }

    /// Gives a command: `call`, `answer`, `terminate`, `pause`, `resume`, `transfer`, ...
    pub fn command(&mut self, command: &str) -> Result<()> {
        self.program.write(format!("{command}\n").as_bytes())
    }

    /// Waits until the phone has said something, the n-th time.
    pub fn says(&self, text: &str, nth: usize, within: Duration) -> Result<()> {
        self.program.says_times(text, nth, within)
    }

    /// Waits until the phone is registered: it says so only when asked.
    pub fn registered(&mut self) -> Result<()> {
        for _ in 0..30 {
            self.command("status register")?;
            if self.says("registered, identity=", 1, Duration::from_millis(500)).is_ok() {
                return Ok(());
            }
        }
        self.says("registered, identity=", 1, Duration::ZERO)
    }

    /// What the program has said.
    pub fn output(&self) -> String {
        self.program.output()
    }

    /// What the phone has heard so far. It writes the file's header only at the recording's end.
    pub fn heard(&self) -> Result<Recording> {
        let file = self.folder.join("heard.wav");
        Recording::read(&file).or_else(|_| Recording::read_without_header(&file, 8000))
    }
}

/// The account is in the file, not in a `register` command: that one mixes up the digest's user and domain.
fn configuration(account: &Account) -> String {
    let Account { user, password, domain, transport, expires, .. } = account;
    let port = |of| if *transport == of { 5060 } else { 0 };
    let mut text = format!(
        "[sip]\nsip_port={}\nsip_tcp_port={}\nsip_tls_port={}\nverify_server_certs=0\nverify_server_cn=0\n\
         guess_hostname=1\nuse_ipv6=0\ndefault_proxy=0\n[rtp]\naudio_rtp_port=10000\n\
         [sound]\necho_cancellation=0\n[net]\nmtu=1500\n",
        port("udp"),
        port("tcp"),
        port("tls"),
    );
    if *expires > 0 {
        text += &format!(
            "[auth_info_0]\nusername={user}\npasswd={password}\n[proxy_0]\n\
             reg_proxy=<sip:{domain};transport={transport}>\nreg_identity=sip:{user}@{domain}\n\
             reg_expires={expires}\nreg_sendregister=1\npublish=0\n"
        );
    }
    text
}
