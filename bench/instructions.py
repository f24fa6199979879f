#!/usr/bin/env python3
"""Instructions that reading and writing a SIP message take, counted by callgrind: the same on every machine of a kind,
however busy it is. The message is sip-proxy/wire/tests/messages/invite.sip, an INVITE of 900 bytes with SDP.

usage: instructions.py     (after `cargo build --release -p sip-wire --example cost`)
"""

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/examples/cost"

# Figure name to operation of the program.
FIGURES = {
    "sip_parse_instructions": "parse",
    "sip_check_instructions": "check",
    "sip_serialise_instructions": "serialise",
    "sip_edit_instructions": "edit",
}


def impossible():
    """Why nothing can be counted here, or None."""
    if shutil.which("valgrind") is None:
        return "valgrind counts instructions, and is not installed"
    if not PROGRAM.exists():
        return f"{PROGRAM} is not built: cargo build --release -p sip-wire --example cost"
    return None


def counted(operation, times):
    """Instructions of a whole run."""
    run = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", PROGRAM, operation, str(times)],
                         capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", run.stderr).group(1))


def measure():
    """Instructions of one operation each: what a thousand more of them add to a run, divided by a thousand."""
    return {name: (counted(operation, 1100) - counted(operation, 100)) / 1000 for name, operation in FIGURES.items()}


if __name__ == "__main__":
    reason = impossible()
    if reason:
        raise SystemExit(reason)
    for name, value in measure().items():
        print(f"{name:50} {value:14.1f}")
