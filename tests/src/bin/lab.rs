//! The laboratory by hand: `lab shell` makes both networks, the SBC and phones, and opens a shell in the SBC's namespace.
//! `lab nat` makes two homes behind NATs instead. Everything ends with the shell.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};

use crush_tests::phone::{Account, Kind, Phone};
use crush_tests::process::run;
use crush_tests::sbc::{self, Sbc};
use crush_tests::{Failure, Lab, Network, Result, home};

const CAST: [(&str, Kind, Network, u8, &str); 5] = [
    ("a1", Kind::Baresip, Network::Access, 11, "udp"),
    ("a2", Kind::Linphone, Network::Access, 12, "tcp"),
    ("c1", Kind::Baresip, Network::Core, 11, "tls"),
    ("c2", Kind::Linphone, Network::Core, 12, "udp"),
    ("c3", Kind::Pjsua, Network::Core, 13, "udp"),
];

const COMMANDS: &str = "dial USER | answer | refuse | hangup | hold | resume | transfer USER | join";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["shell"] => shell(),
        ["nat", "--a", a, "--b", b, ref options @ ..] => homes([a, b], options),
        _ => {
            say(
                "usage: lab shell\n       lab nat --a KIND --b KIND [options of the program nat, as --delay 20ms]",
            );
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure.to_string());
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}

fn shell() -> Result<()> {
    if let Some(reason) = Lab::impossible(&["openssl", "curl"]) {
        return Err(Failure(reason));
    }
    let mut lab = Lab::new("shell")?;
    let users = CAST.map(|(user, _, network, ..)| (user, network));
    let sbc = Sbc::start(&lab, &sbc::phones(), &sbc::subscribers(&users))?;
    let commands = lab.folder().join("bin");
    fs::create_dir_all(&commands)?;
    let mut phones = String::new();
    let mut cast = Vec::new();
    for (index, (user, kind, network, number, transport)) in CAST.into_iter().enumerate() {
        if let Some(reason) = Lab::impossible(&[kind.program()]) {
            say(&format!("no {user}: {reason}"));
            continue;
        }
        let address = lab.host(user, network, number)?;
        let account = Account::of(user, network, transport);
        let hertz = 430.0 + 170.0 * index as f64;
        let phone = kind.start(&lab, user, &address, &account, hertz)?;
        phones += &format!("  {user}  {kind:?} at {address} over {transport}, plays {hertz} Hz\n");
        let phone = Arc::new(Mutex::new(Some(phone)));
        take_commands(phone.clone(), network, &lab.folder().join(format!("{user}.commands")))?;
        cast.push(phone);
        let line = format!("#!/bin/sh\necho \"$@\" > {}/{user}.commands\n", lab.folder().display());
        executable(&commands.join(user), &line)?;
    }
    let inside = format!("#!/bin/sh\nhost=$1; shift; exec ip netns exec {}-\"$host\" \"$@\"\n", lab.tag());
    executable(&commands.join("at"), &inside)?;
    say(&format!(
        "phones (say for example `a1 dial c1`, then `c1 answer`):\n{phones}  {COMMANDS}\n\
         `at HOST COMMAND` runs a command at a phone's host or at `sbc`, where this shell is.\n\
         database: psql '{}'\nlogs and recordings: {}",
        sbc.url(),
        lab.folder().display()
    ));
    let ended = open(&lab, &commands);
    // Their threads wait for commands until the process ends, and nothing is dropped then: phones are ended here.
    for phone in cast {
        drop(phone.lock().map(|mut phone| phone.take()));
    }
    ended
}

/// Two homes behind NATs of these kinds, and a STUN and TURN server.
fn homes(kinds: [&str; 2], options: &[&str]) -> Result<()> {
    if let Some(reason) = Lab::impossible(&["conntrack"]) {
        return Err(Failure(reason));
    }
    let mut lab = Lab::new("nat")?;
    let [a, b] = kinds;
    let homes = home::two_homes(&mut lab, [a.parse()?, b.parse()?], options)?;
    let server = lab.host("stun", Network::Access, 30)?;
    let turn = home::turn(&lab, "stun", &[&server]);
    let served = match &turn {
        Ok(_) => format!("  stun  STUN and TURN at {server}, user lab, password lab\n"),
        Err(failure) => format!("no STUN server: {failure}\n"),
    };
    let commands = lab.folder().join("bin");
    fs::create_dir_all(&commands)?;
    let inside = format!("#!/bin/sh\nhost=$1; shift; exec ip netns exec {}-\"$host\" \"$@\"\n", lab.tag());
    executable(&commands.join("at"), &inside)?;
    let mut text = String::new();
    for (home, kind) in homes.iter().zip(kinds) {
        let name = home.name();
        text += &format!("  {name}-1  behind {name}, {kind} at {}\n", home.external());
        if let Some(tell) = home.teller()? {
            executable(&commands.join(format!("nat-{name}")), &format!("#!/bin/sh\nexec {tell} \"$@\"\n"))?;
            text += &format!("        `nat-{name} help`: its mappings, cuts, line\n");
        }
    }
    say(&format!(
        "{text}{served}`at HOST COMMAND` runs a command at a host, at a router (`a`, `b`) or at `sbc`, where this shell is \
         (198.51.100.1 and .2); `at a tcpdump -ni wan` shows a link.\nlogs: {}",
        lab.folder().display()
    ));
    open(&lab, &commands)
}

/// A shell in the SBC's namespace, with these commands.
fn open(lab: &Lab, commands: &Path) -> Result<()> {
    let path = format!("{}:{}", commands.display(), std::env::var("PATH").unwrap_or_default());
    let status = Command::new("ip")
        .args(["netns", "exec", &lab.namespace("sbc"), "bash", "--norc"])
        .env("PATH", path)
        .env("PS1", "lab:\\w\\$ ")
        .status()?;
    if status.success() { Ok(()) } else { Err(Failure(format!("the shell ended with {status}"))) }
}

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// A phone that its thread and the shell's end share; `None` when it has ended.
type Shared = Arc<Mutex<Option<Box<dyn Phone>>>>;

/// A phone does what is written into a named pipe, line by line.
fn take_commands(phone: Shared, network: Network, pipe: &Path) -> Result<()> {
    run(&["mkfifo", &pipe.to_string_lossy()])?;
    let pipe = pipe.to_owned();
    std::thread::spawn(move || {
        let domain = network.address(1);
        // Each writer closes its end, so the pipe is opened anew for the next.
        while let Ok(lines) = fs::File::open(&pipe) {
            for line in BufReader::new(lines).lines().map_while(std::result::Result::ok) {
                let words: Vec<&str> = line.split_whitespace().collect();
                let Ok(mut phone) = phone.lock() else { return };
                let Some(phone) = phone.as_mut() else { return };
                let done = match words[..] {
                    ["dial", user] => phone.dial(&format!("sip:{user}@{domain}")),
                    ["answer"] => phone.answer(),
                    ["refuse"] => phone.refuse(),
                    ["hangup"] => phone.hang_up(),
                    ["hold"] => phone.hold(),
                    ["resume"] => phone.resume(),
                    ["transfer", user] => phone.transfer(&format!("sip:{user}@{domain}")),
                    ["join"] => phone.join(),
                    _ => Err(Failure(COMMANDS.into())),
                };
                if let Err(failure) = done {
                    say(&failure.to_string());
                }
            }
        }
    });
    Ok(())
}
