#!/usr/bin/env python3
"""Instructions of what is done most, counted by callgrind: the same on every machine of a kind, however busy it is. Reading and
writing a SIP message (sip-proxy/wire/tests/messages/invite.sip, an INVITE of 900 bytes with SDP), a call through signalling's core, and
a packet's way through the media plane's.

usage: instructions.py     (after `cargo build --release -p sip-wire -p sip-engine -p media-core --examples`)
"""

import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ROOT / "target/release/examples"

# Figure name to program and operation.
FIGURES = {
    "sip_parse_instructions": ("cost", "parse"),
    "sip_check_instructions": ("cost", "check"),
    "sip_serialise_instructions": ("cost", "serialise"),
    "sip_edit_instructions": ("cost", "edit"),
    "call_instructions": ("call_cost", "call"),
    "rtp_relay_instructions": ("relay_cost", "rtp"),
    "rtcp_relay_instructions": ("relay_cost", "rtcp"),
}


def impossible():
    """Why nothing can be counted here, or None."""
    if shutil.which("valgrind") is None:
        return "valgrind counts instructions, and is not installed"
    if not all((PROGRAMS / program).exists() for program, _ in FIGURES.values()):
        return f"{PROGRAMS} lacks a program: cargo build --release -p sip-wire -p sip-engine -p media-core --examples"
    return None


def counted(program, operation, times):
    """Instructions of a whole run."""
    run = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", PROGRAMS / program, operation, str(times)],
                         capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", run.stderr).group(1))


def measure():
    """Instructions of one operation each: what a thousand more of them add to a run, divided by a thousand."""
    return {name: (counted(*what, 1100) - counted(*what, 100)) / 1000 for name, what in FIGURES.items()}


if __name__ == "__main__":
    reason = impossible()
    if reason:
        raise SystemExit(reason)
    for name, value in measure().items():
        print(f"{name:50} {value:14.1f}")
