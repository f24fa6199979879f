//! A registrar and proxy on the core side: Kamailio in the foreground with a configuration of ours.

use std::fs;
use std::time::Duration;

use crate::{Failure, Lab, Process, Result};

const CONFIGURATION: &str = include_str!("../lab/kamailio/registrar.cfg");

/// Starts Kamailio on a host: registrar (everybody has the password "secret") and proxy on UDP and TCP port 5060.
pub fn start(lab: &Lab, host: &str, address: &str) -> Result<Process> {
    let folder = lab.folder().join(format!("kamailio-{host}"));
    fs::create_dir_all(&folder)?;
    let file = folder.join("kamailio.cfg");
    let modules =
        ["/usr/lib/x86_64-linux-gnu/kamailio/modules", "/usr/lib/aarch64-linux-gnu/kamailio/modules"]
            .into_iter()
            .find(|path| fs::metadata(path).is_ok())
            .ok_or_else(|| Failure("Kamailio's modules are not found".into()))?;
    let text = CONFIGURATION.replace("@ADDRESS@", address).replace("@MODULES@", modules);
    fs::write(&file, text.replace("@FOLDER@", &folder.to_string_lossy()))?;
    let path = file.to_string_lossy().into_owned();
    let runtime = folder.to_string_lossy().into_owned();
    let argv = [
        "kamailio",
        "-DD",
        "-E",
        "-e",
        "-m",
        "32",
        "-M",
        "8",
        "-Y",
        &runtime,
        "-P",
        &format!("{runtime}/pid"),
        "-f",
        &path,
    ];
    let kamailio = lab.start(host, &format!("kamailio-{host}"), &argv)?;
    kamailio.says("ready to serve", Duration::from_secs(10))?;
    Ok(kamailio)
}
