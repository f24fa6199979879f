"""Puts the rows of `make release-matrix` into one file and prints them as a table.

usage: release_matrix.py OUT.json ROWS.json...

Rows are objects: `a`, `b` (phones), `nat_a`, `nat_b` (what stands before them), `phones` (real or virtual), `story`, `runs`, and in how many of
these the call went `direct`, `returned`, ended `silent`, or `missed` a limit; the median `time_to_direct_s`; the longest `gap_ms` (between
working paths; of virtual calls any) and `silence_ms` (of a path that did not work).
"""

import json
import sys
from pathlib import Path
from statistics import median

COLUMNS = ["phones", "a", "b", "nat_a", "nat_b", "story", "runs", "direct", "returned", "silent", "missed"]
MEASURED = ["time_to_direct_s", "gap_ms", "silence_ms"]


def flat(row: dict) -> dict:
    """Virtual rows hold quantiles where real ones hold one number."""
    row = {"phones": "virtual", "story": "seeded"} | row
    for name, chosen in (("time_to_direct_s", "median"), ("gap_ms", "max")):
        if isinstance(row[name], dict):
            stem, unit = name.rsplit("_", 1)
            quantiles = row[name]
            others = {other: value for other, value in quantiles.items() if other != chosen and value is not None}
            row |= {f"{stem}_{other}_{unit}": value for other, value in others.items()}
            row[name] = quantiles[chosen]
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


def summed(rows: list[dict]) -> list[dict]:
    """The rows of each pair of phones as one: there are too many pairs of NATs to read them all."""
    pairs: dict[tuple, list[dict]] = {}
    for row in rows:
        pairs.setdefault((row["a"], row["b"]), []).append(row)
    lines = []
    for (a, b), group in pairs.items():
        line = {"phones": "virtual", "a": a, "b": b, "nat_a": "all", "nat_b": "all", "story": "seeded"}
        line |= {name: sum(row[name] for row in group) for name in ("runs", "direct", "returned", "silent")}
        times, gaps = ([row[name] for row in group if row[name] is not None] for name in MEASURED[:2])
        line |= {"time_to_direct_s": round(median(times), 1) if times else None, "gap_ms": max(gaps, default=None)}
        lines.append(line)
    return lines


def main() -> None:
    out, *inputs = sys.argv[1:]
    rows = [flat(row) for path in inputs for row in json.loads(Path(path).read_text())]
    Path(out).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    columns = COLUMNS + MEASURED
    real = [row for row in rows if row["phones"] == "real"]
    shown = real + summed([row for row in rows if row["phones"] != "real"])
    table = [columns] + [["-" if row.get(name) is None else str(row[name]) for name in columns] for row in shown]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    runs = sum(row["runs"] for row in rows)
    silent, missed = (sum(row.get(name) or 0 for row in rows) for name in ("silent", "missed"))
    print(f"{runs} calls in {len(rows)} rows; {silent} ended silent, {missed} missed a limit")
    for row in rows:
        for why, count in (row.get("why_missed") or {}).items():
            print(f"  {count} of {row['runs']}: {why}")


main()
