#!/usr/bin/env python3
"""What a million rows of everything cost: a call, a change, memory, the start. Writes one flat object.

usage: growth.py [--rows 1000000] [--runs 7] [--seconds 6] [--no-instructions] [OUT.json]     (after `make growth` has built)
"""

import argparse
import json
import os
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from calls import header, headers, with_body, description

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / os.environ.get("GROWTH_PROFILE", "release")
POSTGRES = ROOT / "deploy/dev/postgres.sh"
LATE = 0.050
CALLER, ANSWERER = "127.77.0.11", "127.77.0.12"

CONFIGURATION = """[node]
data = "{folder}/data-{name}"
[database]
url = "{url}"
[http]
listen = "127.0.0.1:{http}"
[limits]
calls = 20000
[[realm]]
name = "access"
authentication = "address"
trunks = true
domains = ["example.net"]
listen = ["udp:{sip}:5060"]
media = ["{sip}"]
[[realm]]
name = "phones"
authentication = "digest"
registrar = "local"
domains = ["example.net"]
listen = ["udp:{sip}:5070"]
media = ["{sip}"]
media_ports = "40000-40999"
"""


def sh(*argv, **more):
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, **more)
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


class Node:
    """An SBC with a database of its own, on loopback."""

    def __init__(self, name, number, folder):
        self.name, self.folder = name, folder
        self.sip, self.http = f"127.77.{number}.1", 18700 + number + os.getpid() % 200
        self.database = folder / f"database-{name}"
        self.database.mkdir()
        self.url = sh(POSTGRES, "start", self.database).strip()
        self.file = folder / f"{name}.toml"
        runtime = sh(POSTGRES, "url", self.database, "runtime").strip()
        self.file.write_text(CONFIGURATION.format(folder=folder, name=name, url=runtime, http=self.http, sip=self.sip))
        sh(TARGET / "sbc", "migrate", "--owner", self.url)
        self.process = None

    def sql(self, text):
        return sh("psql", "-qAt", "-v", "ON_ERROR_STOP=1", self.url, "-c", text).strip()

    def page(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=1) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def start(self, bindings=0):
        """Seconds from exec until it is ready, and until it has its bindings."""
        log = open(self.folder / f"{self.name}.log", "a")
        begun = time.monotonic()
        self.process = subprocess.Popen([TARGET / "sbc", "serve", "--config", self.file], stderr=log, start_new_session=True)
        ready = bound = None
        while ready is None or bound is None:
            if self.process.poll() is not None or time.monotonic() - begun > 300:
                raise RuntimeError(f"{self.name} does not start: {Path(log.name).read_text()[-3000:]}")
            if bound is None and (not bindings or f"\nsbc_bindings {bindings}\n" in (self.page("/metrics") or "")):
                bound = time.monotonic() - begun
            if ready is None and self.page("/readyz"):
                ready = time.monotonic() - begun
            time.sleep(0.02)
        return ready, bound

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def close(self):
        self.stop()
        sh(POSTGRES, "remove", self.database)

    def memory(self, what):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", status).group(1)) * 1024

    def rest(self):
        """Octets resident when nothing goes on."""
        time.sleep(3)
        return self.memory("VmRSS")

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self):
        """Seconds that its threads have run, in nanoseconds' steps."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9


class Traffic:
    """Calls from a trunk to a trunk through nodes: how long each INVITE took from in to out."""

    def __init__(self):
        self.caller, self.answerer = (self.bound(address) for address in (CALLER, ANSWERER))
        self.number, self.delays, self.invited, self.lost = 0, [], {}, 0
        self.answered = set()

    @staticmethod
    def bound(address):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind((address, 5060))
        return made

    def invite(self, node, user):
        self.number += 1
        name = f"g{self.number}-{os.getpid()}"
        own = (f"From: <sip:load@{CALLER}>;tag=c{self.number}\r\nCall-ID: {name}\r\nMax-Forwards: 70\r\nContact: <sip:load@{CALLER}:5060>\r\n")
        message = with_body(f"INVITE sip:{user}@{node.sip} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER}:5060;branch=z9hG4bK{name}\r\n{own}"
                            f"To: <sip:{user}@{node.sip}>\r\nCSeq: 1 INVITE\r\n", description(CALLER, 4000))
        self.invited[user] = (name, own, node, time.monotonic())
        self.caller.sendto(message, (node.sip, 5060))
        return name

    def work(self, until):
        """Answers what comes."""
        while (left := until - time.monotonic()) > 0:
            for ready in select.select([self.caller, self.answerer], [], [], left)[0]:
                data, source = ready.recvfrom(65535)
                self.hear(ready, data.decode(), source)

    def hear(self, ready, message, source):
        if ready is self.answerer and message.startswith("INVITE"):
            user = re.match(r"INVITE sip:([^@]+)@", message).group(1)
            if known := self.invited.get(user):
                self.delays.append(time.monotonic() - known[3])
                self.answered.add(user)
            copied = "".join(headers(message, "Via", "From", "Call-ID", "CSeq", "Record-Route"))
            self.answerer.sendto(with_body(f"SIP/2.0 200 OK\r\n{copied}To: {header(message, 'To')};tag=a\r\nContact: <sip:load@{ANSWERER}:5060>\r\n",
                                           description(ANSWERER, 4002)), source)
        elif ready is self.answerer and message.startswith("BYE"):
            copied = "".join(headers(message, "Via", "From", "To", "Call-ID", "CSeq"))
            self.answerer.sendto(with_body(f"SIP/2.0 200 OK\r\n{copied}"), source)
        elif ready is self.caller and message.startswith("SIP/2.0 "):
            status, method = int(message.split()[1]), header(message, "CSeq").split()[1]
            user = re.match(r"<sip:([^@]+)@", header(message, "To")).group(1)
            known = self.invited.get(user)
            if method != "INVITE" or status < 200 or not known:
                return
            name, own, node, _ = known
            to, target = header(message, "To"), f"sip:{user}@{node.sip}"
            if status < 300:
                target = re.search(r"<(.*?)>", header(message, "Contact")).group(1)
            branch = name if status >= 300 else name + "a"
            send = lambda method, cseq, branch: self.caller.sendto(with_body(
                f"{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER}:5060;branch=z9hG4bK{branch}\r\n{own}To: {to}\r\nCSeq: {cseq} {method}\r\n"), source)
            send("ACK", 1, branch)
            if status < 300:
                send("BYE", 2, name + "b")
            else:
                self.lost += 1

    def run(self, node, users, rate, seconds=None, while_true=None):
        """Calls at a rate, to each of these numbers in turn."""
        begun, count = time.monotonic(), 0
        while (seconds and count < rate * seconds) or (while_true and while_true()):
            self.invite(node, users())
            count += 1
            self.work(begun + count / rate)
        self.work(time.monotonic() + 1)
        return count


def populate(node, rows, bindings):
    node.sql("INSERT INTO trunk (name, realm, host, port, transport) VALUES ('answerer', 'access', '%s', 5060, 'udp'), ('caller', 'access', '%s', 5060, 'udp');"
             "INSERT INTO trunk_address VALUES ('caller', '%s')" % (ANSWERER, CALLER, CALLER))
    addresses = rows // 100
    if addresses:
        node.sql(f"INSERT INTO trunk (name, realm, host) SELECT 'carrier' || n, 'access', '192.0.2.7' FROM generate_series(1, {max(addresses // 10, 1)}) n;"
                 f"INSERT INTO trunk_address SELECT 'carrier' || (1 + n % {max(addresses // 10, 1)}), '10.0.0.0'::inet + n FROM generate_series(1, {addresses}) n")
    if bindings:
        record = """jsonb_build_object('aor', 'b' || n || '@example.net', 'realm', 'phones', 'uri', 'sip:b' || n || '@192.0.2.5', 'flow',
            jsonb_build_object('listener', 'udp:%s:5070', 'transport', 'Udp', 'remote', '192.0.2.5:5060', 'connection', null), 'call_id', 'c' || n,
            'cseq', 1, 'expires', jsonb_build_object('secs', extract(epoch FROM now() + interval '1 day')::bigint, 'nanos', 0), 'q', 1000,
            'instance', null, 'path', '[]'::jsonb, 'user_agent', 'phone', 'behind_nat', false, 'token', null,
            'upstream_expires', jsonb_build_object('secs', 0, 'nanos', 0))""" % node.sip
        node.sql(f"INSERT INTO binding (node, aor, uri, realm, listener, expires_at, record) SELECT 1, 'b' || n || '@example.net', 'sip:b' || n || '@192.0.2.5',"
                 f" 'phones', 'udp:{node.sip}:5070', now() + interval '1 day', {record} FROM generate_series(1, {bindings}) n")


def subscribers(rows):
    return ("INSERT INTO subscriber (domain, username, ha1_md5, ha1_sha256) SELECT 'example.net', 'user' || n, md5(n::text), "
            f"encode(sha256(n::text::bytea), 'hex') FROM generate_series(1, {rows}) n")


def routes(rows, first=0):
    return f"INSERT INTO route (prefix, trunk) SELECT '4' || lpad(n::text, 8, '0'), 'answerer' FROM generate_series({first}, {first + rows - 1}) n"


class Numbers:
    """Drawn over all rows."""

    def __init__(self, rows):
        self.rows, self.state, self.count = rows, 1, 0

    def __call__(self):
        self.state = (self.state * 1664525 + 1013904223) % (1 << 32)
        self.count += 1
        return f"4{self.state * self.rows >> 32:08d}{self.count % 1000000:06d}"


def instructions(rows, calls, runs):
    """Medians of interleaved runs: with all rows, and with one."""
    example = TARGET / "examples/growth_cost"
    def count(rows):
        run = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no", "--toggle-collect=*sbc_side*",
                              example, str(rows), str(calls)], capture_output=True, text=True, check=True)
        return int(re.search(r"Collected : (\d+)", run.stderr).group(1)) / calls
    found = [(count(rows), count(1)) for _ in range(runs)]
    return statistics.median(many for many, _ in found), statistics.median(one for _, one in found)


def in_force(node, traffic, change, number):
    """Milliseconds from the commit until a call to this number goes to its trunk."""
    node.sql(change)
    committed, attempt = time.monotonic(), 0
    while time.monotonic() - committed < 60:
        attempt += 1
        user = f"{number}{attempt:06d}"
        traffic.invite(node, user)
        sent = time.monotonic()
        traffic.work(sent + 0.02)
        if any(user in traffic.answered for user in (f"{number}{n:06d}" for n in range(max(1, attempt - 3), attempt + 1))):
            return (sent - committed) * 1000
    raise RuntimeError(f"{change[:60]} was not in force within a minute")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--runs", type=int, default=7)
    arguments.add_argument("--seconds", type=int, default=6)
    arguments.add_argument("--no-instructions", action="store_true")
    arguments.add_argument("out", nargs="?", default=ROOT / "bench/growth.json")
    chosen = arguments.parse_args()
    rows, bindings = chosen.rows, chosen.rows // 10
    folder = Path(tempfile.mkdtemp(prefix="sbc-growth-"))
    folder.chmod(0o755)
    nodes, figures = [], {}

    def tell(name, value):
        figures[name] = value
        print(f"{name:40} {value:12.3f}", flush=True)

    try:
        if not chosen.no_instructions and shutil.which("valgrind"):
            many, one = instructions(rows, 200, chosen.runs)
            tell("instructions_per_call", many)
            tell("instructions_per_call_vs_one_row", many / one)
        many, one = (Node(name, number, folder) for number, name in enumerate(("many", "one"), 1))
        nodes += [many, one]
        populate(one, 0, 0)
        one.sql("INSERT INTO route (prefix, trunk) VALUES ('4', 'answerer'); SELECT sbc_set_password('example.net', 'user1', 'x')")
        one.start()

        populate(many, rows, bindings)
        many.start(bindings)
        empty = many.rest()
        many.stop()
        many.sql(subscribers(rows))
        many.start(bindings)
        with_subscribers = many.rest()
        many.stop()
        many.sql(routes(rows))
        many.sql("VACUUM ANALYZE")
        ready, bound = many.start(bindings)
        peak = many.memory("VmHWM")
        rest = many.rest()
        tell("start_s", ready)
        tell("bindings_s", bound)
        tell("octets_per_subscriber", (with_subscribers - empty) / rows)
        tell("octets_per_route", (rest - with_subscribers) / rows)

        traffic, numbers = Traffic(), Numbers(rows)
        traffic.run(many, numbers, 50, 2)
        traffic.run(one, numbers, 50, 2)
        costs = []
        for _ in range(chosen.runs):
            pair = []
            for node in (many, one):
                before = node.cpu()
                count = traffic.run(node, numbers, 100, chosen.seconds)
                pair.append((node.cpu() - before) / count)
            costs.append(pair)
        tell("cpu_ms_per_call", statistics.median(cost[0] for cost in costs) * 1000)
        tell("cpu_per_call_vs_one_row", statistics.median(cost[0] for cost in costs) / statistics.median(cost[1] for cost in costs))
        if traffic.lost:
            raise RuntimeError(f"{traffic.lost} calls were refused")

        many.forget_peak()
        slowest = 0
        for number in range(5):
            slowest = max(slowest, in_force(many, traffic, f"INSERT INTO route (prefix, trunk) VALUES ('7{number}', 'answerer')", f"7{number}"))
        tell("change_in_force_ms", slowest)
        traffic.lost = 0

        burst = min(10_000, rows)
        bursts = {
            "one_statement": f"UPDATE route SET priority = priority + 1 WHERE id IN (SELECT id FROM route LIMIT {burst})",
            "transactions": f"DO $$ BEGIN FOR n IN 1..{burst} LOOP UPDATE subscriber SET enabled = true WHERE domain = 'example.net' AND username = 'user' || n;"
                            " COMMIT; END LOOP; END $$",
            "all_routes": f"BEGIN; TRUNCATE route; {routes(rows)}; INSERT INTO route (prefix, trunk) VALUES ('8', 'answerer'); COMMIT",
        }
        late = 0
        for name, change in bursts.items():
            traffic.delays.clear()
            done = threading.Event()
            changing = threading.Thread(target=lambda: (many.sql(change), done.wait(4), done.set()))
            changing.start()
            count = traffic.run(many, numbers, 20, while_true=lambda: not done.is_set())
            changing.join()
            delays = sorted(traffic.delays)
            late += sum(delay > LATE for delay in delays) + max(0, count - len(delays))
            print(f"  {name}: {count} calls, {len(delays)} answered, slowest {delays[-1] * 1000:.1f} ms", flush=True)
            if name != "all_routes":
                probe = f"6{len(name)}"
                slowest = max(slowest, in_force(many, traffic, f"INSERT INTO route (prefix, trunk) VALUES ('{probe}', 'answerer')", probe))
        tell("late_calls_in_burst", late)
        tell("change_in_force_ms", slowest)
        peak = max(peak, many.memory("VmHWM"))
        time.sleep(5)
        tell("rest_mib", rest / (1 << 20))
        tell("peak_vs_rest", peak / rest)
        Path(chosen.out).write_text(json.dumps(figures, indent=1) + "\n")
    finally:
        for node in nodes:
            node.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
