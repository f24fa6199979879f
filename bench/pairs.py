#!/usr/bin/env python3
"""This commit against another one: `bench.py --only sbc` of both by turns, and the median of the ratios of each pair.

usage: pairs.py COMMIT [--pairs 7] [--part calls|memory|packets]... [--work FOLDER]     (root, two CPUs, nothing else running)
Each commit is measured by its own bench/, built in release in a worktree of its own. Ratios below 1: this one costs less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ("sbc_cpu_ms_per_call", "sbc_softirq_ms_per_call", "sbc_memory_kib_per_held_call", "sbc_cpu_us_per_packet", "sbc_cpu_us_per_packet_at_maximum", "max_pps_sbc")


def sh(*words, **more):
    subprocess.run([str(word) for word in words], check=True, **more)


class Side:
    """A commit in a worktree, with a target folder of its own."""

    def __init__(self, work, commit):
        self.tree, self.target = work / commit, work / f"{commit}-target"
        if not self.tree.exists():
            sh("git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", self.tree, commit)
        self.environment = {**os.environ, "CARGO_TARGET_DIR": str(self.target)}
        sh("cargo", "build", "--quiet", "--release", "--workspace", "--bins", "--examples", cwd=self.tree, env=self.environment)

    def measure(self, parts):
        words = [word for part in parts for word in ("--part", part)]
        sh(sys.executable, self.tree / "bench/bench.py", "--only", "sbc", *words, cwd=self.tree, env=self.environment, stdout=subprocess.DEVNULL)
        return json.loads((self.tree / "bench/results.json").read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--part", choices=["calls", "memory", "packets"], action="append")
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    parts = arguments.part or ["calls", "memory", "packets"]
    work = arguments.work or Path(tempfile.mkdtemp(prefix="sbc-pairs-"))
    work.mkdir(parents=True, exist_ok=True)
    names = [subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", name], check=True, capture_output=True, text=True).stdout.strip()
             for name in (arguments.commit, "HEAD")]
    before, now = (Side(work, name) for name in names)
    found = {}
    for pair in range(arguments.pairs):
        # By turns who is first: a machine that warms up or tires favours neither.
        first, second = (before, now) if pair % 2 == 0 else (now, before)
        measured = {first: first.measure(parts), second: second.measure(parts)}
        line = []
        for figure in FIGURES:
            old, new = measured[before].get(figure), measured[now].get(figure)
            if old and new:
                found.setdefault(figure, []).append(new / old)
                line.append(f"{figure} {new:.3f}/{old:.3f}")
        print(f"pair {pair + 1}: " + ", ".join(line), flush=True)
    print(f"{names[1]} against {names[0]}, median of {arguments.pairs} pairs (least to most):")
    for figure, ratios in found.items():
        print(f"{figure:40} {statistics.median(ratios):7.3f}  ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
