"""Adds the rows of `make release-records` to a file, and prints how far records are from captures; ends with 1 if a bound was not kept.

usage: release_records.py OUT.json FOLDER

FOLDER has files of rows, which are deleted once they are in OUT.json; a row of the same call takes the place of an older one. With AGAIN=1 in
the environment rows with something wrong are dropped first, so that their calls are played again.

Rows are objects, one a call record: `kind` (real or virtual), `pair` and `number` of a real one, `seed` of a virtual one, `phones`, `act` (what
happened to it), `line_loss`, `seconds`; `direct_s` and `relayed_s` by the record and, as bounds, by the captures at the phones; `streams`
with packets sent and lost by the captures and by the record, and MOS; `gaps`; `off`, by how much the record is further from the captures than they
allow for (`time_ms`, `loss` as a share, `mos`, `gap_ms` of measured gaps); and `wrong`, what of that is more than it may be.
"""

import json
import os
import sys
from pathlib import Path

BOUNDS = {"time_ms": 100, "loss": 0.01, "mos": 0.2, "gap_ms": 20}


def name(row: dict) -> tuple:
    """Of a call that was transferred there are two rows."""
    return (row["kind"], row.get("pair", ""), row.get("number", row.get("seed", 0)))


def read(path: Path) -> list[dict]:
    return json.loads(path.read_text()) if path.exists() else []


def write(path: Path, rows: list[dict]) -> None:
    rows.sort(key=name)
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def main() -> int:
    out, folder = map(Path, sys.argv[1:])
    rows = read(out)
    if os.environ.get("AGAIN"):
        wrong = {name(row) for row in rows if row["wrong"]}
        rows = [row for row in rows if name(row) not in wrong]
    parts = sorted(folder.glob("*.json"))
    new = [row for part in parts for row in read(part)]
    names = {name(row) for row in new}
    rows = [row for row in rows if name(row) not in names] + new
    write(out, rows)
    for part in parts:
        part.unlink()
    for kind in ("real", "virtual"):
        of_kind = [row for row in rows if row["kind"] == kind]
        if not of_kind:
            print(f"{kind}: none")
            continue
        calls = len({name(row) for row in of_kind})
        wrong = sum(1 for row in of_kind if row["wrong"])
        most = {what: max(row.get("off", {}).get(what, 0) for row in of_kind) for what in BOUNDS}
        unknown = sum(1 for row in of_kind for stream in row.get("streams", []) if not stream["record"])
        print(
            f"{kind}: {calls} calls, {wrong} records wrong; off at most: time {most['time_ms']:.0f} ms, loss {most['loss'] * 100:.2f} %, "
            f"MOS {most['mos']:.2f}, measured gaps {most['gap_ms']:.0f} ms; loss of {unknown} streams unknown"
        )
    for row in rows:
        for wrong in row["wrong"]:
            print(f"{row.get('pair', row.get('seed'))} {row.get('number', '')} {row.get('act', '')}: {wrong}")
    return 1 if any(row["wrong"] for row in rows) else 0


sys.exit(main())
