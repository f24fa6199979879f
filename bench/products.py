"""What is compared: each product starts in the rig's middle namespace and lists its processes."""

import glob
import os
import shutil
from pathlib import Path

from rig import ACCESS, CORE, settle, sh

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def program(name):
    """One of this repository's, as `make bench` builds it."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / name


class KamailioRtpengine:
    """Kamailio with rtpengine in user space, both in the foreground with our configuration."""

    name = "kamailio_rtpengine"
    relay_name = "rtpengine"
    # A share of all calls.
    tolerated_failures = 0.05

    @staticmethod
    def impossible():
        missing = [program for program in ("kamailio", "rtpengine", "sipp") if not shutil.which(program)]
        return f"not installed: {', '.join(missing)} (make install)" if missing else None

    def __init__(self, rig):
        media = rig.start("product", 1, "rtpengine", "--foreground", "--log-stderr", "--log-level=3", "--table=-1",
                          f"--interface=access/{ACCESS}.1", f"--interface=core/{CORE}.1", "--listen-ng=127.0.0.1:2223",
                          "--port-min=20000", "--port-max=60000", "--num-threads=1", "--config-file=none")
        settle()
        modules = glob.glob("/usr/lib/*/kamailio/modules")[0]
        configuration = rig.folder / "kamailio.cfg"
        configuration.write_text((HERE / "peers/kamailio.cfg").read_text().replace("@MODULES@", modules))
        signalling = rig.start("product", 1, "kamailio", "-DD", "-E", "-m", "256", "-M", "16", "-Y", rig.folder,
                               "-P", rig.folder / "kamailio.pid", "-f", configuration)
        settle(2)
        self.processes, self.relay_processes = [media, signalling], [media]
        for process in self.processes:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args} ended: {Path(process.log.name).read_text()[-2000:]}")


    def check(self, calls):
        """It keeps no records."""


class Sbc:
    """This program, with the configuration of bench/peers/sbc.toml.in: realms access and core, a trunk to the answerer."""

    name = relay_name = "sbc"
    tolerated_failures = 0
    template = HERE / "peers/sbc.toml.in"

    @classmethod
    def impossible(cls):
        if not program("sbc").exists():
            return f"no program at {program('sbc')}"
        return None if cls.template.exists() else f"no configuration template at {cls.template}"

    def __init__(self, rig):
        configuration = rig.folder / "sbc.toml"
        script, self.database = ROOT / "deploy/dev/postgres.sh", rig.folder / "database"
        self.database.mkdir()
        rig.folder.chmod(0o755)
        self.url = sh(script, "start", self.database).strip()
        runtime = sh(script, "url", self.database, "runtime").strip()
        rig.finally_do(lambda: sh(script, "remove", self.database))
        configuration.write_text(self.template.read_text().replace("@VAR@", str(rig.folder)).replace("@DATABASE_URL@", runtime))
        sh(program("sbc"), "migrate", "--owner", self.url)
        sh("psql", "-q", self.url, "-c", "INSERT INTO trunk (name, realm, host, port, transport) VALUES ('answerer', 'core', '203.0.113.12', 5060, 'udp');"
           "INSERT INTO route (trunk) VALUES ('answerer')")
        serving = rig.start("product", 1, program("sbc"), "serve", "--config", configuration)
        settle(2)
        self.processes = self.relay_processes = [serving]
        if serving.poll() is not None:
            raise RuntimeError(f"sbc ended: {Path(serving.log.name).read_text()[-2000:]}")

    def check(self, calls):
        """Every call has its record, by way of the journal: what is compared includes that."""
        for _ in range(20):
            records = int(sh("psql", "-qAt", self.url, "-c", "SELECT count(*) FROM call WHERE ended_at IS NOT NULL"))
            if records == calls:
                return
            settle()
        raise RuntimeError(f"{records} records of {calls} calls")


ALL = {KamailioRtpengine.name: KamailioRtpengine, Sbc.name: Sbc}
