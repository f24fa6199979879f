//! Drives linphonec 5.1: commands on standard input, files in place of a sound card.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::phone::{Account, Event, Phone};
use crate::process::eventually;
use crate::tone::Recording;
use crate::{Lab, Process, Result};

/// A running linphonec.
#[derive(Debug)]
pub struct Linphone {
    program: Process,
    folder: PathBuf,
    cursor: usize,
}

impl Linphone {
    /// Starts a phone on a host that plays a tone of `hertz` in every call and records what it hears.
    pub fn start(lab: &Lab, host: &str, address: &str, account: &Account, hertz: f64) -> Result<Self> {
        let folder = lab.folder().join(format!("linphone-{host}"));
        fs::create_dir_all(folder.join(".local/share/linphone"))?;
        account.recording(hertz).write(&folder.join("tone.wav"))?;
        fs::write(folder.join("linphonerc"), configuration(account, address.contains(':')))?;
        let home = folder.to_string_lossy().into_owned();
        let configuration = format!("{home}/linphonerc");
        let argv = ["stdbuf", "-oL", "linphonec", "-c", &configuration, "-d", "6"];
        let environment = [("HOME", home.as_str()), ("TERM", "dumb")];
        let program = lab.start_with(host, &format!("linphone-{host}"), &argv, &environment)?;
        let mut phone = Linphone { program, folder, cursor: 0 };
        phone.command("soundcard use files")?;
        phone.command(&format!("play {home}/tone.wav"))?;
        phone.command(&format!("record {home}/heard.wav"))?;
        Ok(phone)
    }

    /// Gives a command: `call`, `answer`, `terminate`, `pause`, `resume`, `transfer`, ...
    pub fn command(&mut self, command: &str) -> Result<()> {
        self.program.write(format!("{command}\n").as_bytes())
    }
}

impl Phone for Linphone {
    /// It says so only when asked.
    fn registered(&mut self, within: Duration) -> Result<()> {
        let mut failure = None;
        let is_registered = eventually(within, || {
            failure = self.command("status register").err();
            failure.is_some()
                || self.program.says("registered, identity=", Duration::from_millis(300)).is_ok()
        });
        match failure {
            Some(failure) => Err(failure),
            None if is_registered => Ok(()),
            None => self.program.says("registered, identity=", Duration::ZERO),
        }
    }

    fn dial(&mut self, uri: &str) -> Result<()> {
        self.command(&format!("call {uri}"))
    }

    fn answer(&mut self) -> Result<()> {
        self.command("answer")
    }

    fn refuse(&mut self) -> Result<()> {
        self.command("terminate")
    }

    fn hang_up(&mut self) -> Result<()> {
        self.command("terminate")
    }

    fn hold(&mut self) -> Result<()> {
        self.command("pause")
    }

    fn resume(&mut self) -> Result<()> {
        self.command("resume")
    }

    fn mute(&mut self) -> Result<()> {
        // It sends no packets while it has no file to play; muted it would send silence.
        self.command(&format!("play {}/nothing.wav", self.folder.display()))
    }

    fn unmute(&mut self) -> Result<()> {
        self.command(&format!("play {}/tone.wav", self.folder.display()))
    }

    fn press(&mut self, digit: char) -> Result<()> {
        self.command(&digit.to_string())
    }

    fn transfer(&mut self, uri: &str) -> Result<()> {
        self.command(&format!("transfer {uri}"))
    }

    fn join(&mut self) -> Result<()> {
        self.command("transfer 1 --to-call 2")
    }

    fn wait(&mut self, event: Event, within: Duration) -> Result<()> {
        // Whole lines of its own; the log around them has words like these too.
        let is_it: fn(&str) -> bool = match event {
            Event::Incoming => |line| line.contains("Receiving new incoming call from"),
            Event::Ringing => |line| line.contains("Call ") && line.ends_with(" ringing."),
            Event::Established => |line| line.contains("Call ") && line.ends_with(" connected."),
            Event::Ended => |line| {
                line.contains("Call ")
                    && line.contains(" with ")
                    && (line.contains(" ended (") || line.ends_with(" error.") || line.contains(" declined"))
            },
        };
        let find = |said: &[u8]| {
            let mut end = 0;
            for line in said.split_inclusive(|byte| *byte == b'\n') {
                end += line.len();
                let text = String::from_utf8_lossy(line);
                if text.ends_with('\n') && is_it(text.trim_end()) {
                    return Some(end);
                }
            }
            None
        };
        self.program.says_next(&format!("{event:?}"), &mut self.cursor, within, find)
    }

    fn trace(&self) -> String {
        self.program.output()
    }

    /// It writes the file's header only at a recording's end, and goes on in the same file with its next call: what the
    /// header says is never the whole.
    fn heard(&self) -> Result<Recording> {
        Recording::read_without_header(&self.folder.join("heard.wav"), 8000)
    }

    fn id(&self) -> u32 {
        self.program.id()
    }
}

/// The account is in the file, not in a `register` command: that one mixes up the digest's user and domain.
/// Only G.711 is enabled, so that what is on the wire can be heard too.
fn configuration(account: &Account, is_ipv6: bool) -> String {
    let Account { user, password, domain, transport, expires, calls, rings, keeps_contact, .. } = account;
    let port = |of| if *transport == of { 5060 } else { 0 };
    let mut text = format!(
        "[sip]\nsip_port={}\nsip_tcp_port={}\nsip_tls_port={}\nverify_server_certs=0\nverify_server_cn=0\n\
         guess_hostname=1\nuse_ipv6={}\ndefault_proxy=0\ncontact=sip:{user}@{domain}\ninc_timeout={rings}\n\
         [misc]\nmax_calls={calls}\n[rtp]\naudio_rtp_port=10000\n\
         [sound]\necho_cancellation=0\n[net]\nmtu=1500\nenable_nat_helper={}\n",
        port("udp"),
        port("tcp"),
        port("tls"),
        u8::from(is_ipv6),
        u8::from(!keeps_contact),
    );
    let codecs = [
        ("opus", 48000, 2, 0),
        ("speex", 16000, 1, 0),
        ("speex", 8000, 1, 0),
        ("PCMU", 8000, 1, 1),
        ("PCMA", 8000, 1, 1),
        ("G729", 8000, 1, 0),
    ];
    for (index, (mime, rate, channels, enabled)) in codecs.into_iter().enumerate() {
        text += &format!(
            "[audio_codec_{index}]\nmime={mime}\nrate={rate}\nchannels={channels}\nenabled={enabled}\n"
        );
    }
    if account.says.is_some() {
        // Without a mixer behind its player it sends nothing when that has nothing to play.
        text = text.replace("[sound]\n", "[sound]\nfeatures=PLC|DTMF\n");
    }
    if account.srtp {
        text = text.replace("[sip]\n", "[sip]\nmedia_encryption=srtp\nmedia_encryption_mandatory=1\n");
    }
    if account.ice {
        // The proxy has a policy of its own.
        text = text.replace("[net]\n", "[net]\nnat_policy_ref=ice\n");
        text += "[nat_policy_0]\nref=ice\nprotocols=ice\n";
    }
    if *expires > 0 {
        text += &format!(
            "[auth_info_0]\nusername={user}\npasswd={password}\n[proxy_0]\n\
             reg_proxy=<{}>\nreg_route=<{};lr>\nreg_identity=sip:{user}@{domain}\n\
             reg_expires={expires}\nreg_sendregister=1\npublish=0\n{}",
            account.proxy_uri(),
            account.proxy_uri(),
            if account.ice { "nat_policy_ref=ice\n" } else { "" },
        );
    }
    text
}
