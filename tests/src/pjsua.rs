//! Drives a PJSIP phone (pjsua2-python of PyPI): lab/pjsua2/phone.py, commands on its standard input.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::console::{Console, Lines};
use crate::phone::Account;
use crate::tone::Recording;
use crate::{Lab, Result};

/// The interpreter that has pjsua2: what tests/lab/install.sh made, or the one SBC_LAB_PYTHON names.
pub fn python() -> PathBuf {
    std::env::var_os("SBC_LAB_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../var/pjsua2/bin/python3"),
        PathBuf::from,
    )
}

/// A running PJSIP phone.
#[derive(Debug)]
pub struct Pjsua(Console);

impl Pjsua {
    /// Starts a phone on a host, listening at `address`, that plays a tone of `hertz` in every call.
    pub fn start(lab: &Lab, host: &str, address: &str, account: &Account, hertz: f64) -> Result<Self> {
        let folder = lab.folder().join(format!("pjsua-{host}"));
        fs::create_dir_all(&folder)?;
        let (tone, heard) = (folder.join("tone.wav"), folder.join("heard.wav"));
        account.recording(hertz).write(&tone)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/pjsua2/phone.py");
        let Account { user, password, domain, transport, expires, calls, keeps_contact, .. } = account;
        let contact = if *keeps_contact { "own" } else { "seen" };
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let argv: [&str; 14] = [
            &text(&python()),
            "-u",
            &text(&script),
            address,
            user,
            domain,
            &account.proxy_uri(),
            password,
            transport,
            &expires.to_string(),
            &calls.to_string(),
            contact,
            &text(&tone),
            &text(&heard),
        ];
        let mut vars = Vec::new();
        vars.extend(account.ice.then_some(("PHONE_ICE", "1")));
        vars.extend((!account.vad).then_some(("PHONE_VAD", "0")));
        vars.extend(account.srtp.then_some(("PHONE_SRTP", "1")));
        vars.extend(account.turn.as_deref().map(|server| ("PHONE_TURN", server)));
        let program = lab.start_with(host, &format!("pjsua-{host}"), &argv, &vars)?;
        program.says("@ ready", Duration::from_secs(20))?;
        Ok(Pjsua(Console::new(program, folder)))
    }
}

impl Lines for Pjsua {
    const REFUSE: &'static str = "refuse 486";

    fn console(&self) -> &Console {
        &self.0
    }

    fn console_mut(&mut self) -> &mut Console {
        &mut self.0
    }

    fn mark(name: &str) -> String {
        format!("\n@ {name}")
    }

    fn pressing(digit: char) -> Result<String> {
        Ok(format!("press {digit}"))
    }

    fn recording(&self) -> Result<Recording> {
        let file = self.0.folder.join("heard.wav");
        Recording::read(&file).or_else(|_| Recording::read_without_header(&file, 8000))
    }
}
