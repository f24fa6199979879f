//! The product under test, in the namespace between the two networks, with a database of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::network::SBC;
use crate::process::{eventually, run};
use crate::{Failure, Lab, Network, Process, Result};

/// A running SBC.
#[derive(Debug)]
pub struct Sbc {
    program: Option<Process>,
    folder: PathBuf,
    url: String,
    environment: Vec<(String, String)>,
    starts: u32,
}

/// Realms for phones on both sides: each has its registrar and its domain, which is the SBC's address there.
pub fn phones() -> String {
    phones_with("")
}

/// The same with more settings in both.
pub fn phones_with(settings: &str) -> String {
    [Network::Access, Network::Core]
        .map(|network| phone_realm(network.name(), &network.address(SBC), [5060, 5061], settings))
        .join("\n")
}

/// The same with IPv6 alone on the access side.
pub fn phones_of_both_families() -> String {
    let access = format!("[{}]", Network::Access.address6(SBC));
    let core = Network::Core.address(SBC);
    phone_realm("access", &access, [5060, 5061], "") + "\n" + &phone_realm("core", &core, [5060, 5061], "")
}

/// A realm with a registrar of its own that listens on all transports at an address; `ports` are those of UDP and TCP,
/// and of TLS.
pub fn phone_realm(name: &str, address: &str, ports: [u16; 2], settings: &str) -> String {
    let [port, tls] = ports;
    let media = address.trim_matches(['[', ']']);
    let media_ports = media_ports(port);
    format!(
        "[[realm]]\nname = \"{name}\"\ndomains = [\"{address}\"]\nregistrar = \"local\"\nauthentication = \"digest\"\n\
         listen = [\"udp:{address}:{port}\", \"tcp:{address}:{port}\", \"tls:{address}:{tls}\"]\n\
         certificate = \"@FOLDER@/certificate.pem\"\nkey = \"@FOLDER@/key.pem\"\n\
         media = [\"{media}\"]\nmedia_ports = \"{media_ports}\"\n{settings}\n"
    )
}

/// SQL that makes subscribers, all with the password "secret".
pub fn subscribers(users: &[(&str, Network)]) -> String {
    let one = |(user, network): &(&str, Network)| {
        format!("SELECT sbc_set_password('{}', '{user}', 'secret');", network.address(SBC))
    };
    users.iter().map(one).collect()
}

/// Realms for load: anybody may call, and the core is a trunk.
pub fn load() -> String {
    let (access, core) = (Network::Access.address(SBC), Network::Core.address(SBC));
    format!(
        "[[realm]]\nname = \"access\"\nauthentication = \"open\"\nlisten = [\"udp:{access}:5060\"]\nmedia = [\"{access}\"]\nmedia_ports = \"20000-49999\"\n\n\
         [[realm]]\nname = \"core\"\nauthentication = \"open\"\ntrunks = true\nlisten = [\"udp:{core}:5060\"]\nmedia = [\"{core}\"]\nmedia_ports = \"20000-49999\"\n"
    )
}

/// The domain of phones whose registrar is in the core: a name, since an address of one side would be told to the other
/// in what the core's registrar must see to check a password.
pub const FORWARDED_DOMAIN: &str = "sip.example";

/// A realm on the access side that forwards registrations to a registrar on the core side, `host:port/transport`.
pub fn forwarding_realm(name: &str, port: u16, registrar: &str, settings: &str) -> String {
    let access = Network::Access.address(SBC);
    let media_ports = media_ports(port);
    format!(
        "[[realm]]\nname = \"{name}\"\ndomains = [\"{FORWARDED_DOMAIN}\"]\nregistrar = \"forward\"\nforward_to = \"{registrar}\"\n\
         forward_realm = \"core\"\nauthentication = \"registered\"\nlisten = [\"udp:{access}:{port}\", \"tcp:{access}:{port}\"]\n\
         media = [\"{access}\"]\nmedia_ports = \"{media_ports}\"\n{settings}\n\n"
    )
}

/// Realms that share an address are apart by their ports, those of media too.
fn media_ports(port: u16) -> String {
    let first = 20_000 + 100 * (port - 5060);
    format!("{first}-{}", first + 999)
}

/// The core side of such a realm: a proxy's network, where anybody may call.
pub fn open_core() -> String {
    let core = Network::Core.address(SBC);
    format!(
        "[[realm]]\nname = \"core\"\nauthentication = \"open\"\ntrunks = true\nlisten = [\"udp:{core}:5060\", \"tcp:{core}:5060\"]\n\
         media = [\"{core}\"]\n"
    )
}

impl Sbc {
    /// Starts database and SBC with these realms, and with what `seed` writes into the database.
    pub fn start(lab: &Lab, realms: &str, seed: &str) -> Result<Self> {
        Self::start_with(lab, realms, seed, &[])
    }

    /// The same with environment variables for the program, at this and every later start.
    pub fn start_with(lab: &Lab, realms: &str, seed: &str, environment: &[(&str, &str)]) -> Result<Self> {
        let folder = lab.folder().join("sbc");
        std::fs::create_dir_all(&folder)?;
        let text = folder.display().to_string();
        let owner = postgres(&["start", &text])?;
        let [runtime, operator] = ["runtime", "operator"].map(|role| postgres(&["url", &text, role]));
        let (runtime, url) = (runtime?, operator?);
        let head = format!(
            "[node]\ndata = \"{text}/data\"\ndrain_seconds = 2\n\n[database]\nurl = \"{runtime}\"\n\n[http]\nlisten = \"127.0.0.1:8080\"\n\n"
        );
        std::fs::write(folder.join("sbc.toml"), head + &realms.replace("@FOLDER@", &text))?;
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut sbc = Self { program: None, folder, url, environment: environment.collect(), starts: 0 };
        sbc.renew_certificate("sbc")?;
        run(&[&program(), "migrate", "--owner", &owner])?;
        sbc.sql(seed)?;
        sbc.serve(lab)?;
        Ok(sbc)
    }

    /// Starts the program (again).
    pub fn serve(&mut self, lab: &Lab) -> Result<()> {
        self.starts += 1;
        let label = format!("sbc-{}", self.starts);
        let mut environment = vec![("NO_COLOR", "1")];
        environment.extend(self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let argv = [&program(), "serve", "--config", &self.configuration()];
        let process = lab.start_with("sbc", &label, &argv, &environment)?;
        process.says("ready", Duration::from_secs(10))?;
        let namespace = lab.namespace("sbc");
        let ready = || {
            run(&["ip", "netns", "exec", &namespace, "curl", "-sf", "http://127.0.0.1:8080/readyz"]).is_ok()
        };
        if !eventually(Duration::from_secs(10), ready) {
            return Err(Failure(format!("the SBC did not get ready: {}", process.output())));
        }
        self.program = Some(process);
        Ok(())
    }

    fn configuration(&self) -> String {
        self.folder.join("sbc.toml").display().to_string()
    }

    /// Writes a new certificate and key of its own making; the program takes them when it is told to.
    pub fn renew_certificate(&self, name: &str) -> Result<()> {
        let [key, certificate] =
            ["key.pem", "certificate.pem"].map(|file| self.folder.join(file).display().to_string());
        let subject = format!("/CN={name}");
        run(&[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "30",
            "-subj",
            &subject,
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])
        .map(drop)
    }

    /// Sends a signal by name.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.program.as_ref().map_or(Ok(()), |program| program.signal(signal))
    }

    /// An operator's connection to its database, as psql takes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut program) = self.program.take() {
            program.signal("KILL")?;
            program.ended(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) -> Result<()> {
        if let Some(mut program) = self.program.take() {
            program.signal("TERM")?;
            program.ended(Duration::from_secs(15))?;
        }
        Ok(())
    }

    /// Waits until it has ended of itself, or as it was told by a signal.
    pub fn ended(&mut self, within: Duration) -> Result<()> {
        self.program.as_mut().map_or(Ok(()), |program| program.ended(within).map(drop))
    }

    /// The process id.
    pub fn id(&self) -> Option<u32> {
        self.program.as_ref().map(Process::id)
    }

    /// What it has logged since its latest start.
    pub fn output(&self) -> String {
        self.program.as_ref().map(Process::output).unwrap_or_default()
    }

    /// A metric's value.
    pub fn metric(&self, lab: &Lab, name: &str) -> Result<u64> {
        let text = run(&[
            "ip",
            "netns",
            "exec",
            &lab.namespace("sbc"),
            "curl",
            "-sf",
            "http://127.0.0.1:8080/metrics",
        ])?;
        let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
            .ok_or_else(|| Failure(format!("no metric {name}")))
    }

    /// Runs SQL; the rows come back as lines, columns parted by `|`.
    pub fn sql(&self, text: &str) -> Result<String> {
        run(&["psql", "-qAt", "-v", "ON_ERROR_STOP=1", &self.url, "-c", text])
            .map(|rows| rows.trim().to_owned())
    }

    /// Waits until a query gives these rows.
    pub fn eventually_sql(&self, text: &str, expected: &str, within: Duration) -> Result<()> {
        let mut last = String::new();
        let is_so = eventually(within, || {
            last = self.sql(text).unwrap_or_else(|failure| failure.0);
            last == expected
        });
        if is_so { Ok(()) } else { Err(Failure(format!("{text}: {last:?} is not {expected:?}"))) }
    }

    /// Stops the database, or starts it again.
    pub fn database(&self, is_up: bool) -> Result<()> {
        postgres(&[if is_up { "start" } else { "stop" }, &self.folder.display().to_string()]).map(drop)
    }
}

impl Drop for Sbc {
    fn drop(&mut self) {
        self.program = None;
        let _ = self.database(false);
        let _ = postgres(&["remove", &self.folder.display().to_string()]);
    }
}

/// What the script of private databases says.
fn postgres(words: &[&str]) -> Result<String> {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/dev/postgres.sh").display().to_string();
    let said = run(&[&[script.as_str()], words].concat())?;
    Ok(said.trim().to_owned())
}

fn program() -> String {
    beside("sbc", "SBC_PROGRAM")
}

/// A program of the project's: beside this one or a folder above it, or where the variable says.
pub(crate) fn beside(name: &str, variable: &str) -> String {
    if let Ok(program) = std::env::var(variable) {
        return program;
    }
    let own = std::env::current_exe().unwrap_or_default();
    let candidates = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let found = candidates.into_iter().find(|program| program.exists());
    found.map_or_else(|| name.into(), |program| program.display().to_string())
}
