"""CPU per forwarded RTP packet, at one rate for all and at each product's own maximum.

500 calls are set up through the product; their callers' media then comes from packet sockets on CPU 0 at an exact rate, and is counted
where it arrives. Taking a packet in (softirq, up to the product's socket) happens on CPU 0 too, so that the product's time is its own; it
is told apart.
"""

import json
import statistics
import subprocess

from calls import Calls
from rig import ACCESS, CORE, cpu_seconds, settle, softirq_seconds

STREAMS = 500
EQUAL_RATE = 50_000
# Of the callers and of the answerers: stream i has port + 2 i.
PORT = 30_000
LARGEST_LOSS = 0.001
STEP = 1.06
# At the equal rate.
TURNS = 4


class Load:
    """A sender and a receiver round a product with 500 calls."""

    def __init__(self, rig, program):
        self.rig, self.program = rig, program
        calls = Calls(rig.socket("caller", f"{ACCESS}.11", 5060), rig.socket("answerer", f"{CORE}.12", 5060), (f"{ACCESS}.1", 5060))
        macs = f"{rig.mac('caller', 'eth0')} {rig.mac('product', 'access')}"
        lines = []
        for stream in range(STREAMS):
            port = PORT + 2 * stream
            address, relay_port = calls.set_up(port, port)
            lines.append(f"{macs} {ACCESS}.11:{port} {address}:{relay_port}\n")
        self.flows = rig.folder / "flows"
        self.flows.write_text("".join(lines))
        # Counted and thrown away as soon as they arrive: no receiver runs that could miss any. First each stream for itself, by port
        # and SSRC; that takes time of the product's CPU, where what it sends arrives, so the measured runs count all of them together.
        count = f"add rule netdev bench in udp dport {PORT}-65535"
        rig.run("answerer", "nft", "add table netdev bench; add set netdev bench heard { typeof udp dport . @th,128,32; size 65535; flags dynamic; counter; };"
                " add counter netdev bench arrived; add chain netdev bench in { type filter hook ingress device eth0 priority 0; };"
                f" {count} add @heard {{ udp dport . @th,128,32 }} counter name arrived drop")
        self.run([], 10_000, 2)
        self.check_streams()
        rig.run("answerer", "nft", f"flush chain netdev bench in; {count} counter name arrived drop")

    def check_streams(self):
        """Every stream came out where its call's answerer is."""
        listed = json.loads(self.rig.run("answerer", "nft", "-j", "list set netdev bench heard"))
        elements = [item["set"] for item in listed["nftables"] if "set" in item][0].get("elem", [])
        heard = {tuple(element["elem"]["val"]["concat"]) for element in elements}
        if heard != {(PORT + 2 * stream, stream) for stream in range(STREAMS)}:
            raise RuntimeError(f"{len(heard)} streams came out, or not where they should")

    def totals(self):
        listed = json.loads(self.rig.run("answerer", "nft", "-j", "list counter netdev bench arrived"))
        return [item["counter"] for item in listed["nftables"] if "counter" in item][0]["packets"]

    def run(self, processes, rate, seconds):
        """Sends at a rate: what it cost per packet that arrived (µs), and the share that did not."""
        before = self.totals()
        cpu, soft = cpu_seconds(processes), softirq_seconds(0) + softirq_seconds(1)
        sender = self.rig.start("caller", 0, self.program, "eth0", self.flows, rate, seconds, stdout=subprocess.PIPE)
        sent, elapsed = sender.communicate(timeout=seconds * 3 + 30)[0].split()
        settle(0.2)
        cpu, soft = cpu_seconds(processes) - cpu, softirq_seconds(0) + softirq_seconds(1) - soft
        arrived = self.totals() - before
        return {"rate": int(sent) / float(elapsed), "loss": 1 - arrived / int(sent),
                "cpu": 1e6 * cpu / max(arrived, 1), "softirq": 1e6 * soft / max(arrived, 1)}


def packet_costs(found, program, log):
    """`found`: (rig, product) of each, all of them up. At the equal rate they take turns, so that a machine that changes its pace does so for all."""
    loads = {product.relay_name: (Load(rig, program), product.relay_processes) for rig, product in found}
    turns = {name: [] for name in loads}
    for _ in range(TURNS):
        for name, (load, processes) in loads.items():
            turns[name].append(load.run(processes, EQUAL_RATE, 3))
            log(f"{name} {EQUAL_RATE} {turns[name][-1]}")
    figures = {}
    for name, (load, processes) in loads.items():
        loss = statistics.median(turn["loss"] for turn in turns[name])
        if loss > LARGEST_LOSS:
            raise RuntimeError(f"{name} at {EQUAL_RATE} packets/s: loss {loss}")
        figures[f"{name}_cpu_us_per_packet"] = statistics.median(turn["cpu"] for turn in turns[name])
        figures[f"{name}_softirq_us_per_packet"] = statistics.median(turn["softirq"] for turn in turns[name])
        figures.update(at_maximum(name, load, processes, log))
    return figures


def at_maximum(name, load, processes, log):
    rate, best, best_rate = EQUAL_RATE, None, 0
    while True:
        # A machine hiccups; a relay beyond its maximum loses the second time too.
        runs = []
        while len(runs) < 2 and not (runs and runs[-1]["loss"] <= LARGEST_LOSS):
            runs.append(load.run(processes, rate, 2))
            log(f"{name} {rate} {runs[-1]}")
        is_sender_slow = runs[-1]["rate"] < 0.98 * rate
        if is_sender_slow:
            log(f"the sender can't reach {rate} packets/s: {name} does at least {best_rate}")
        if is_sender_slow or runs[-1]["loss"] > LARGEST_LOSS:
            break
        best, best_rate = runs[-1], rate
        rate = round(rate * STEP)
    if best is None:
        raise RuntimeError(f"{name} does not reach {rate} packets/s: {runs}")
    settle(2)
    recovered = load.run(processes, 10_000, 2)
    return {
        f"max_pps_{name}": best_rate,
        f"{name}_cpu_us_per_packet_at_maximum": best["cpu"],
        f"{name}_softirq_us_per_packet_at_maximum": best["softirq"],
        f"{name}_loss_at_10000_pps_after_overload": recovered["loss"],
    }
