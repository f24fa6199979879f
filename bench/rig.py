"""Namespaces, processes and what they cost: the ground the comparisons stand on."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ACCESS, CORE = "198.51.100", "203.0.113"
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def sh(*argv):
    return subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True).stdout


class Rig:
    """Caller on the access network, answerer on the core network, the product dual-homed between them.

    Products are pinned to CPU 1, everything else to CPU 0; all of it goes before whatever else the machine does.
    """

    made = 0

    def __init__(self):
        Rig.made += 1
        self.tag = f"bench{os.getpid()}-{Rig.made}"
        self.folder = Path(tempfile.mkdtemp(prefix="sbc-bench-"))
        self.processes = []
        self.last = []
        for host in ("caller", "product", "answerer"):
            sh("ip", "netns", "add", self.namespace(host))
            sh("ip", "-n", self.namespace(host), "link", "set", "lo", "up")
        self._link("caller", f"{ACCESS}.11", "access", f"{ACCESS}.1")
        self._link("answerer", f"{CORE}.12", "core", f"{CORE}.1")

    def _link(self, host, address, device, gateway):
        there, here = self.namespace(host), self.namespace("product")
        sh("ip", "link", "add", "eth0", "netns", there, "type", "veth", "peer", "name", device, "netns", here)
        for namespace, name, own in ((there, "eth0", address), (here, device, gateway)):
            sh("ip", "-n", namespace, "addr", "add", own + "/24", "dev", name)
            sh("ip", "-n", namespace, "link", "set", name, "up")
        sh("ip", "-n", there, "route", "add", "default", "via", gateway)

    def namespace(self, host):
        return f"{self.tag}-{host}"

    def run(self, host, *argv):
        return sh("ip", "netns", "exec", self.namespace(host), *argv)

    def mac(self, host, device):
        return self.run(host, "cat", f"/sys/class/net/{device}/address").strip()

    def socket(self, host, address, port):
        """A UDP socket of ours in a host's network: a socket stays where it was made."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/self/ns/net") as home, open(f"/run/netns/{self.namespace(host)}") as there:
            if libc.setns(there.fileno(), 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                made.bind((address, port))
            finally:
                libc.setns(home.fileno(), 0x40000000)
        return made

    def start(self, host, cpu, *argv, stdin=subprocess.DEVNULL, stdout=None):
        log = open(self.folder / f"{len(self.processes)}-{Path(argv[0]).name}.log", "w+")
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace(host), "nice", "-n", "-20", "taskset", "-c", str(cpu), *map(str, argv)],
            stdin=stdin, stdout=stdout or log, stderr=log, start_new_session=True, cwd=self.folder)
        process.log = log
        self.processes.append(process)
        return process

    def stop(self, process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def finally_do(self, task):
        """Done when everything has been stopped."""
        self.last.append(task)

    def close(self):
        for process in reversed(self.processes):
            self.stop(process)
        for task in self.last:
            task()
        for host in ("caller", "product", "answerer"):
            subprocess.run(["ip", "netns", "del", self.namespace(host)], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def family(roots):
    """Process ids of the given processes and all below them."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
            except OSError:
                continue
    todo, found = [process.pid for process in roots], []
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo.extend(children.get(pid, []))
    return found


def cpu_seconds(roots):
    """User and system time of the processes, with that of children which ended and were waited for."""
    total = 0
    for pid in family(roots):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def softirq_seconds(cpu):
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{cpu} "):
            return int(line.split()[7]) / TICKS
    return 0.0


def proportional_bytes(roots):
    """Proportional set size: memory that processes share counts once."""
    total = 0
    for pid in family(roots):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def kernel_bytes():
    """Slab and per-CPU memory of the whole machine: only a difference across a quiet run means something."""
    values = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(values[name].split()[0]) * 1024 for name in ("Slab", "Percpu"))


def settle(seconds=1.0):
    time.sleep(seconds)
