#!/usr/bin/env python3
"""Side by side with Kamailio + rtpengine, in one run: prints every figure and writes bench/results.json.

usage: bench.py [--only PRODUCT] [--part PART] [--seconds N] [--held N] [--verbose]     (root, two CPUs; see `make bench`)
A ratio is written only when both of its sides were measured in this run.
"""

import argparse
import contextlib
import csv
import functools
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import instructions
import products
from packets import packet_costs
from rig import ACCESS, CORE, Rig, cpu_seconds, kernel_bytes, proportional_bytes, settle, softirq_seconds

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ROOT / "tests/lab/sipp"


def sipp(rig, host, label, scenario, local, *more):
    statistics = rig.folder / f"{label}.csv"
    process = rig.start(host, 0, "sipp", "-nostdin", "-trace_err", "-error_file", rig.folder / f"{label}-errors.log", "-trace_stat", "-fd", "1", "-stf", statistics, "-sf", SCENARIOS / scenario,
                        "-i", local, "-mi", local, "-p", 5060, "-buff_size", 8000000, *more)
    process.statistics = statistics
    return process


def last_row(process):
    """SIPp's newest statistics by name; it writes no line before its first second has passed."""
    rows = list(csv.reader(process.statistics.open(), delimiter=";"))
    if len(rows) < 2:
        raise RuntimeError("SIPp left no statistics: " + Path(process.log.name).read_text()[-2000:])
    return dict(zip(rows[0], rows[-1]))


def call_cost(rig, product, rate, seconds):
    """CPU per call of the product's processes, in milliseconds, with softirq of its CPU apart."""
    answerer = sipp(rig, "answerer", f"{product.name}-uas", "answerer.xml", f"{CORE}.12")
    settle()
    before, soft_before, began = cpu_seconds(product.processes), softirq_seconds(1), time.time()
    calls = rate * seconds
    caller = sipp(rig, "caller", f"{product.name}-uac", "caller.xml", f"{ACCESS}.11", "-s", "load", "-d", 1000, "-r", rate,
                  "-m", calls, "-l", rate * 10, f"{ACCESS}.1:5060")
    caller.wait(seconds * 3 + 40)
    spent = cpu_seconds(product.processes) - before
    soft = softirq_seconds(1) - soft_before
    row = last_row(caller)
    succeeded, failed = int(row["SuccessfulCall(C)"]), int(row["FailedCall(C)"])
    rig.stop(answerer)
    # A peer may lose some: Kamailio's children overtake each other between 180 and 200. Its cost counts as if it had carried them all.
    if succeeded + failed != calls or failed > product.tolerated_failures * calls:
        raise RuntimeError(f"{product.name}: {failed} of {calls} calls failed, {succeeded} succeeded: costs of another load than the other's")
    product.check(succeeded)
    return {
        f"{product.name}_cpu_ms_per_call": 1000 * spent / calls,
        f"{product.name}_softirq_ms_per_call": 1000 * soft / calls,
        f"{product.name}_calls_per_second": succeeded / (time.time() - began),
        f"{product.name}_failed_calls": failed,
    }


def held_cost(rig, product, held):
    """Memory per held call: the processes' proportional set and the kernel's slab, in KiB."""
    answerer = sipp(rig, "answerer", f"{product.name}-uas-held", "answerer.xml", f"{CORE}.12")
    settle()
    own, kernel = proportional_bytes(product.processes), kernel_bytes()
    rate = 250
    caller = sipp(rig, "caller", f"{product.name}-uac-held", "caller.xml", f"{ACCESS}.11", "-s", "load", "-d", 600000, "-r", rate,
                  "-m", held, "-l", held, f"{ACCESS}.1:5060")
    settle(held / rate + 6)
    # SIPp may be behind its rate.
    for _ in range(20):
        row = last_row(caller)
        open_calls = int(row["CurrentCall"])
        if open_calls == held:
            break
        settle()
    else:
        raise RuntimeError(f"{product.name}: {open_calls} of {held} calls are up, {row['FailedCall(C)']} failed")
    own, kernel = proportional_bytes(product.processes) - own, kernel_bytes() - kernel
    rig.stop(caller)
    rig.stop(answerer)
    return {
        f"{product.name}_held_calls": open_calls,
        f"{product.name}_process_kib_per_held_call": own / 1024 / max(open_calls, 1),
        f"{product.name}_kernel_kib_per_held_call": kernel / 1024 / max(open_calls, 1),
        f"{product.name}_memory_kib_per_held_call": (own + kernel) / 1024 / max(open_calls, 1),
    }


def one_by_one(cost):
    def part(possible, arguments, log):
        figures = {}
        for product in possible:
            with Rig() as rig:
                figures.update(cost(rig, product(rig), arguments))
        return figures
    return part


def packets(possible, arguments, log):
    with contextlib.ExitStack() as rigs:
        found = [(rig, product(rig)) for product in possible for rig in [rigs.enter_context(Rig())]]
        return packet_costs(found, products.program("examples/packet_load"), log)


PARTS = {
    "calls": one_by_one(lambda rig, product, arguments: call_cost(rig, product, 300, arguments.seconds)),
    "memory": one_by_one(lambda rig, product, arguments: held_cost(rig, product, arguments.held)),
    "packets": packets,
}

RATIOS = {
    "cpu_per_call_vs_kamailio_rtpengine": ("sbc_cpu_ms_per_call", "kamailio_rtpengine_cpu_ms_per_call"),
    "memory_per_call_vs_kamailio_rtpengine": ("sbc_memory_kib_per_held_call", "kamailio_rtpengine_memory_kib_per_held_call"),
    "cpu_per_packet_vs_rtpengine": ("sbc_cpu_us_per_packet", "rtpengine_cpu_us_per_packet"),
    "cpu_per_packet_at_maximum_vs_rtpengine": ("sbc_cpu_us_per_packet_at_maximum", "rtpengine_cpu_us_per_packet_at_maximum"),
    "max_pps_vs_rtpengine": ("max_pps_sbc", "max_pps_rtpengine"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(products.ALL))
    parser.add_argument("--part", choices=sorted(PARTS), action="append")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--held", type=int, default=5000)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("the benchmarks make network namespaces: run them as root")
    figures, missing, possible = {}, [], []
    if arguments.only is None and arguments.part is None:
        reason = instructions.impossible()
        if reason:
            missing.append(f"instructions: {reason}")
        else:
            figures.update(instructions.measure())
    for name, product in products.ALL.items():
        if arguments.only in (None, name):
            reason = product.impossible()
            missing.extend([f"{name}: {reason}"] if reason else [])
            possible.extend([] if reason else [product])
    log = functools.partial(print, flush=True) if arguments.verbose else lambda line: None
    for part in arguments.part or PARTS:
        figures.update(PARTS[part](possible, arguments, log))
    for ratio, (ours, theirs) in RATIOS.items():
        ours, theirs = figures.get(ours), figures.get(theirs)
        if ours is not None and theirs:
            figures[ratio] = ours / theirs
    for name, value in figures.items():
        print(f"{name:50} {value:14.3f}")
    (ROOT / "bench/results.json").write_text(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2) + "\n")
    for line in missing:
        print("NOT MEASURED", line)
    if missing:
        sys.exit(1)


if __name__ == "__main__":
    main()
