#!/usr/bin/env python3
"""What strangers can take from calls: every attack alone, then all at a third of their rates; writes bench/attack.json.

usage: attack.py [--seconds N] [--tail N] [--scale X] [--only KIND,...] [--programs FOLDER] [--out FILE] [--verbose]
(root, two CPUs; see `make attack` and docs/benchmarks.md)
Ends with 1 if a bound was not kept.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from rig import ACCESS, CORE, Rig, settle, sh

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SIP, TLS, HTTP, STUN = (f"{ACCESS}.1:{port}" for port in (5060, 5061, 8080, 3478))
MEDIA = None  # a port in use, which the callers tell

# kind of the attacker program, rate (of held connections: how many), target, and what one octet in may cost in octets out
ATTACKS = {
    "junk": ("junk", 50_000, SIP, 2.0),
    "invites": ("invite", 5_000, SIP, 2.0),
    "invites_with_to_tag": ("tagged", 5_000, SIP, 2.0),
    "invites_with_28_kb_via": ("vias", 1_000, SIP, 2.0),
    "tls_handshakes": ("tls", 300, TLS, None),
    "idle_tcp_connections": ("idle", 10_000, SIP, None),
    "half_open_http": ("http", 2_000, HTTP, None),
    "one_account_32_streams": ("account", 100, SIP, None),
    "rtp_at_a_port_in_use": ("rtp", 20_000, MEDIA, 2.0),
    "stun_at_sip": ("stun", 5_000, SIP, 2.1),
    "stun_at_discovery": ("stun", 5_000, STUN, 2.1),
    "stun_at_media": ("stun", 5_000, MEDIA, 2.1),
}
COUNTED_BY_SENDER = ("tls", "idle", "http", "account")
ADDRESSES = 1024
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
WARM, COOL = 4, 3


class Ground(Rig):
    """The rig with a fourth namespace whose 65,536 addresses are all strangers'. The SBC has CPU 1, all else CPU 0; attackers
    go after the calls' ends, which are not what is measured."""

    def __init__(self, programs):
        super().__init__()
        self.programs = programs
        self.share_by_priority()
        sh("ip", "netns", "add", self.namespace("strangers"))
        sh("ip", "-n", self.namespace("strangers"), "link", "set", "lo", "up")
        self._link("strangers", "192.0.2.2", "strangers", "192.0.2.1")
        sh("ip", "-n", self.namespace("strangers"), "route", "add", "local", "10.66.0.0/16", "dev", "lo")
        sh("ip", "-n", self.namespace("product"), "route", "add", "10.66.0.0/16", "via", "192.0.2.2")
        for host in range(12, 31):
            sh("ip", "-n", self.namespace("caller"), "addr", "add", f"{ACCESS}.{host}/24", "dev", "eth0")
        sh("ip", "-n", self.namespace("answerer"), "addr", "add", f"{CORE}.13/24", "dev", "eth0")
        sh("ip", "-n", self.namespace("product"), "addr", "add", f"{ACCESS}.2/24", "dev", "access")
        rules = """table ip seen {
            counter came { }
            counter went { }
            counter asked { }
            chain before {
                type filter hook prerouting priority -300
                iifname "strangers" meta l4proto udp counter name came
                iifname "strangers" meta l4proto udp ip frag-off & 0x1fff == 0 counter name asked
            }
            chain after {
                type filter hook postrouting priority 300
                oifname "strangers" meta l4proto udp counter name went
            }
        }"""
        self.run("product", "nft", rules)

    def share_by_priority(self):
        """Each process has a session of its own, and where the kernel groups sessions their priorities mean nothing to each other."""
        if AUTOGROUP.exists() and (was := AUTOGROUP.read_text()).strip() != "0":
            AUTOGROUP.write_text("0")
            self.finally_do(lambda: AUTOGROUP.write_text(was))

    def seen(self):
        """Datagrams and octets, headers counted, that came from strangers and went to them."""
        found = {}
        for item in json.loads(self.run("product", "nft", "-j", "list", "counters"))["nftables"]:
            if counter := item.get("counter"):
                found[counter["name"]] = (counter["packets"], counter["bytes"])
        return found

    def begin(self, host, nice, *argv, cpu=0):
        log = open(self.folder / f"{len(self.processes)}-{Path(argv[0]).name}.log", "w+")
        process = subprocess.Popen(["ip", "netns", "exec", self.namespace(host), "nice", "-n", str(nice), "taskset", "-c", str(cpu), *map(str, argv)],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        process.log = log
        self.processes.append(process)
        return process

    def close(self):
        super().close()
        subprocess.run(["ip", "netns", "del", self.namespace("strangers")], check=False)


class Product:
    """The SBC with its database: a fresh process for each attack."""

    def __init__(self, ground):
        self.ground = ground
        script, database = ROOT / "deploy/dev/postgres.sh", ground.folder / "database"
        database.mkdir()
        ground.folder.chmod(0o755)
        self.url = sh("taskset", "-c", "0", script, "start", database).strip()
        runtime = sh(script, "url", database, "runtime").strip()
        ground.finally_do(lambda: sh(script, "remove", database))
        self.configuration = ground.folder / "sbc.toml"
        template = (HERE / "peers/attacked.toml.in").read_text()
        self.configuration.write_text(template.replace("@VAR@", str(ground.folder)).replace("@DATABASE_URL@", runtime))
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=sbc",
           "-keyout", ground.folder / "key.pem", "-out", ground.folder / "certificate.pem")
        sh(ground.programs / "sbc", "migrate", "--owner", self.url)
        users = "".join(f"SELECT sbc_set_password('{ACCESS}.1', '{user}', 'secret');"
                        for user in [f"p{number}" for number in range(1000)] + ["bell11", "bell12", "bell13", "mallory"])
        sh("psql", "-q", "-o", "/dev/null", self.url, "-c",
           f"INSERT INTO trunk (name, realm, host, port, transport) VALUES ('one', 'core', '{CORE}.12', 5060, 'udp'), ('two', 'core', '{CORE}.13', 5060, 'tcp');"
           f"INSERT INTO trunk_address (trunk, address) VALUES ('one', '{CORE}.12'), ('two', '{CORE}.13');"
           "INSERT INTO route (prefix, trunk) VALUES ('+1', 'one'), ('+2', 'two');" + users)
        self.process = None

    def start(self):
        # As an operator would run it: no priority over others.
        self.process = self.ground.begin("product", 0, self.ground.programs / "sbc", "serve", "--config", self.configuration, cpu=1)
        for _ in range(100):
            if self.ready_within(1) is not None:
                return
            time.sleep(0.1)
        raise RuntimeError(f"the SBC is not ready: {Path(self.process.log.name).read_text()[-2000:]}")

    def stop(self):
        self.ground.stop(self.process)

    def ready_within(self, seconds):
        """How long `/readyz` took; None if it failed."""
        began = time.monotonic()
        answer = subprocess.run(["ip", "netns", "exec", self.ground.namespace("product"), "nice", "-n", "-20", "taskset", "-c", "0", "curl", "-sf", "-m", str(seconds),
                                 "-o", "/dev/null", "http://127.0.0.1:8080/readyz"], check=False)
        return time.monotonic() - began if answer.returncode == 0 else None

    def memory(self):
        """Resident, MiB."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0


class Watch(threading.Thread):
    """Asks the SBC every second whether it is ready, and how large it is."""

    def __init__(self, product):
        super().__init__(daemon=True)
        self.product, self.largest, self.slowest, self.done = product, 0.0, 0.0, threading.Event()

    def run(self):
        while not self.done.wait(0.5):
            self.largest = max(self.largest, self.product.memory())
            took = self.product.ready_within(5)
            self.slowest = max(self.slowest, 5.0 if took is None else took)

    def end(self):
        self.done.set()
        self.join()


def lines(process):
    """What a program of ours has told in JSON so far."""
    process.log.flush()
    found = []
    for line in Path(process.log.name).read_text().splitlines():
        if line.startswith("{"):
            found.append(json.loads(line))
    return found


def port_in_use(callers):
    for _ in range(100):
        for line in lines(callers):
            if "target" in line:
                return line["target"]
        time.sleep(0.1)
    raise RuntimeError(f"the callers' first call was not answered: {Path(callers.log.name).read_text()[-2000:]}")


def attack(ground, product, name, kinds, options):
    """One row: the calls' fate while attackers of these kinds, each with a name and a rate, do their worst."""
    product.start()
    settle(2)
    idle = product.memory()
    seconds = options.seconds
    callers = ground.begin("caller", -20, ground.programs / "callers", ground.namespace("caller"), ground.namespace("answerer"), WARM + seconds + COOL, 5)
    media = port_in_use(callers)
    settle(WARM)
    watch = Watch(product)
    watch.start()
    before, began = ground.seen(), time.monotonic()
    attackers = {which: ground.begin("strangers", 0, ground.programs / "attacker", ATTACKS[which][0], rate, seconds, ATTACKS[which][2] or media, ADDRESSES)
                 for which, rate in kinds.items()}
    for process in attackers.values():
        process.wait(seconds + 60)
    lasted = time.monotonic() - began
    during = ground.seen()
    callers.wait(seconds + 60)
    # What a stranger's request costs others later, as retransmissions do, counts too.
    datagrams = [ATTACKS[which][3] for which in kinds if ATTACKS[which][3]]
    settle(options.tail if datagrams else 1)
    after = ground.seen()
    watch.end()
    told = lines(callers)[-1]
    done = {which: sum(line["done"] for line in lines(process) if "done" in line) / lasted for which, process in attackers.items()}
    came = (during["asked"][0] - before["asked"][0]) / lasted
    octets = [after[way][1] - before[way][1] for way in ("came", "went")]
    if options.verbose:
        print("  ", told, flush=True)
        for process in attackers.values():
            print("  ", Path(process.log.name).read_text().strip(), flush=True)
    by_sender = [which for which in kinds if ATTACKS[which][0] in COUNTED_BY_SENDER]
    row = {
        "attack": name,
        "offered_per_s": round(done[by_sender[0]] if by_sender and len(kinds) == 1 else came, 1),
        "seconds": round(lasted, 1),
        "calls": told["calls"],
        "calls_lost": told["calls_lost"],
        "pdd_p99_ms": round(told["pdd_p99_ms"], 1),
        "rtp_lost_share": round(1 - told["rtp_received"] / max(told["rtp_sent"], 1), 5),
        "octets_out_per_in": round(octets[1] / octets[0], 3) if datagrams and octets[0] else None,
        "memory_mib": round(watch.largest - idle, 1),
        "readyz_max_ms": round(watch.slowest * 1000),
    }
    if len(kinds) > 1:
        row["each_per_s"] = {which: round(rate, 1) for which, rate in done.items()}
    if told["why"]:
        row["why_lost"] = told["why"]
    log = Path(product.process.log.name).read_text()
    metrics = ground.run("product", "curl", "-s", "-m", "5", "http://127.0.0.1:8080/metrics")
    product.stop()
    if options.logs:
        Path(options.logs).mkdir(parents=True, exist_ok=True)
        (Path(options.logs) / f"sbc-{name}.log").write_text(log)
        (Path(options.logs) / f"metrics-{name}").write_text(metrics)
    limit = max(datagrams) if datagrams else None
    return row, broken(row, limit)


def broken(row, limit):
    """Bounds that a row does not keep."""
    bounds = [
        (row["calls"] > 0, "no call was made"),
        (row["calls_lost"] == 0, f"{row['calls_lost']} calls lost: {row.get('why_lost')}"),
        (row["pdd_p99_ms"] < 100, f"post-dial delay {row['pdd_p99_ms']} ms"),
        (row["rtp_lost_share"] <= 0.001, f"RTP lost {row['rtp_lost_share']:.2%}"),
        (row["memory_mib"] <= 256, f"{row['memory_mib']} MiB above idle"),
        (row["readyz_max_ms"] <= 1000, f"/readyz took {row['readyz_max_ms']} ms"),
        (limit is None or row["octets_out_per_in"] is None or row["octets_out_per_in"] <= limit, f"{row['octets_out_per_in']} octets out per octet in"),
    ]
    return [text for kept, text in bounds if not kept]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("ATTACK_SECONDS", 60)))
    parser.add_argument("--tail", type=int, default=40)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--programs", type=Path, default=Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release")
    parser.add_argument("--out", default=str(HERE / "attack.json"))
    parser.add_argument("--logs")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    rows, failures = [], []
    with Ground(options.programs.resolve()) as ground:
        product = Product(ground)
        rates = {name: max(1, rate * options.scale) for name, (_, rate, _, _) in ATTACKS.items()}
        plans = {"none": {}, **{name: {name: rate} for name, rate in rates.items()}, "all_at_a_third": {name: rate / 3 for name, rate in rates.items()}}
        for name in only or plans:
            row, faults = attack(ground, product, name, plans[name], options)
            rows.append(row)
            failures += [f"{name}: {fault}" for fault in faults]
            print(json.dumps(row), "kept" if not faults else faults, flush=True)
    Path(options.out).write_text(json.dumps(rows, indent=1) + "\n")
    for failure in failures:
        print("NOT KEPT", failure, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
