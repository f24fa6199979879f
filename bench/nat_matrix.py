#!/usr/bin/env python3
"""Joins the virtual runs of the NAT matrix with those in namespaces, and draws both: nat_matrix.py VIRTUAL.json NAMESPACES.json OUT.json OUT.svg

One table per condition (limiter and setting, loss): rows are callers, columns callees; a field is as green as its share of
direct calls, and says the share and the time to direct (median, 95th percentile), and below it what real sockets did.

Exits with 1, and a list, if a row keeps a promise not: see `promises`.
"""

import json
import sys

CELL_W, CELL_H, LEFT, TOP, GAP = 150, 74, 150, 74, 34
NAMES = {
    "same-lan": "same LAN",
    "public": "public",
    "upnp": "UPnP router",
    "full-cone": "full cone",
    "restricted-cone": "address-restricted",
    "cone": "port-restricted",
    "symmetric-sequential": "symmetric, counting",
    "symmetric-random": "symmetric, random",
}


CONDITIONS = {
    "none": "default settings, nothing in front of the NATs",
    "drop": "default settings, in front of each a limiter that drops what is beyond 30 new flows/s",
    "block": "default settings, in front of each a limiter that blocks the host for 2 s beyond 30 new flows/s",
    "setting": "fast temper, set by somebody who knows that nothing is in front",
}

# Before haste needed somebody's word, s: medians of 1,000 runs each by (caller, callee), at 200 new flows/s. A pair is easy where no
# port needs to be guessed. What comes with a packet's time of phones may differ by one.
EASY_BEFORE = {"same-lan": 0.398, "public": 0.278, "public-nat": 0.473, "nat-public": 0.463, "nat-nat": 0.613, "nat-symmetric": 0.653}
PACKET_S = 0.02
FAST_BEFORE = {"one sequential": 1.053, "two sequential": 1.22, "random": 2.024}
# With default settings: median, 95th percentile.
CAREFUL = {"one sequential": (4, None), "two sequential": (6, None), "random": (16, 45)}
# With loss the first packets decide: what one that is lost costs is added, 200 ms and its half.
LOSS_S = 0.3


def kind(row):
    """Of a pair: `easy`, what has to be guessed, or `none` if nothing of bounded cost exists."""
    pair = (row["a"], row["b"])
    symmetric = [name for name in pair if name.startswith("symmetric")]
    if not symmetric or any(not name.startswith("symmetric") and name != "cone" for name in pair):
        return "easy"
    if len(symmetric) == 2:
        return "two sequential" if set(symmetric) == {"symmetric-sequential"} else "none"
    return "random" if symmetric == ["symmetric-random"] else "one sequential"


def easy_before(row):
    a, b = row["a"], row["b"]
    if a == "same-lan" or (a, b) == ("public", "public"):
        return EASY_BEFORE[a]
    if "public" in (a, b):
        return EASY_BEFORE["public-nat" if a == "public" else "nat-public"]
    return EASY_BEFORE["nat-symmetric" if b.startswith("symmetric") else "nat-nat"]


def promises(row):
    """What a row does not keep, in words."""
    missed = []
    for what in ("blocked", "dropped", "harmed"):
        if row.get(what, 0):
            missed.append(f"{what} {row[what]}")
    median, p95, pair = row["time_to_direct_s"]["median"], row["time_to_direct_s"]["p95"], kind(row)
    if pair == "none":
        return missed
    if median is None:
        return missed + ["no direct path"]
    # Real phones play one call or three a pair: what chance may do to a guess is no news there.
    is_virtual = row["network"] == "virtual"
    spare = (PACKET_S if row["loss"] == 0 else LOSS_S) + (0 if is_virtual else 0.1)
    if pair == "easy":
        most = (easy_before(row) + spare, None)
    elif not is_virtual:
        return missed
    elif row["limiter"] == "setting":
        most = (FAST_BEFORE[pair] + spare, None)
    else:
        most = CAREFUL[pair]
    missed += [
        f"{name} {value} s, at most {bound:.3f}"
        for name, value, bound in zip(("median", "p95"), (median, p95), most)
        if bound is not None and value > bound
    ]
    return missed


def colour(share):
    """White to green; a pair that no method of bounded cost exists for stays grey."""
    if share == 0:
        return "#e3e3e3"
    return f"rgb({int(250 - 130 * share)}, {int(250 - 45 * share)}, {int(250 - 120 * share)})"


def seconds(value):
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def text(x, y, content, size=12, anchor="middle", weight="normal"):
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">{content}</text>'
    )


def real(found, pair):
    """Two lines of what happened in namespaces, where a pair was played one way round; empty if it was not."""
    row = found.get(pair) or found.get(pair[::-1])
    if row is None:
        return "", ""
    heard = [round(row[f"first_audio_at_{side}_ms"]) for side in ("caller", "callee")]
    audio = f'heard {heard[0]}, {heard[1]} ms: {row["pick_up_to_audio_vs_ice"]:.2f} × ICE'
    direct = f'real: {round(row["direct_share"] * row["runs"])} of {row["runs"]}'
    took = row["time_to_direct_s"]["median"]
    return direct if took is None else f"{direct}, {seconds(took)} s", audio


def table(rows, found, title, top):
    """Lines of SVG, and the height used."""
    places = [name for name in NAMES if name != "same-lan"]
    by_pair = {(row["a"], row["b"]): row for row in rows}
    lan = by_pair[("same-lan", "same-lan")]
    out = [text(8, top + 20, title, 15, "start", "bold")]
    took = lan["time_to_direct_s"]
    aside = f'both in one LAN: {lan["direct_share"]:.0%}, {seconds(took["median"])} s ({seconds(took["p95"])})'
    if any(beside := real(found, ("same-lan", "same-lan"))):
        aside += "; " + "; ".join(beside)
    out.append(text(8, top + 40, aside, 12, "start"))
    for column, name in enumerate(places):
        out.append(text(LEFT + column * CELL_W + CELL_W / 2, top + TOP - 8, NAMES[name], 11))
    for line, a in enumerate(places):
        y = top + TOP + line * CELL_H
        out.append(text(LEFT - 8, y + CELL_H / 2 + 4, NAMES[a], 11, "end"))
        for column, b in enumerate(places):
            row, x = by_pair[(a, b)], LEFT + column * CELL_W
            out.append(
                f'<rect x="{x}" y="{y}" width="{CELL_W}" height="{CELL_H}" '
                f'fill="{colour(row["direct_share"])}" stroke="#fff"/>'
            )
            share = f'{100 * row["direct_share"]:.4g} %'
            out.append(text(x + CELL_W / 2, y + 19, share, 13, weight="bold"))
            took = row["time_to_direct_s"]
            if took["median"] is not None:
                below = f'{seconds(took["median"])} s ({seconds(took["p95"])})'
            else:
                below = "stays on the relay"
            out.append(text(x + CELL_W / 2, y + 36, below, 11))
            for below, line in zip((51, 65), real(found, (a, b))):
                out.append(text(x + CELL_W / 2, y + below, line, 10))
    return out, TOP + len(places) * CELL_H + GAP


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main(virtual, namespaces, joined, picture):
    rows, wire = read(virtual), read(namespaces)
    with open(joined, "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in rows + wire) + "\n]\n")
    runs = rows[0]["runs"]
    conditions = [(limiter, loss) for limiter in CONDITIONS for loss in sorted({row["loss"] for row in rows})]
    out, height = [], 58
    for limited, loss in conditions:
        chosen = [row for row in rows if (row["limiter"], row["loss"]) == (limited, loss)]
        title = f"{CONDITIONS[limited]}; {'no' if loss == 0 else f'{loss:.0%}'} loss"
        found = {(row["a"], row["b"]): row for row in wire if (row["limiter"], row["loss"]) == (limited, loss)}
        lines, used = table(chosen, found, title, height)
        out += lines
        height += used
    width = LEFT + (len(NAMES) - 1) * CELL_W + 8
    heading = [
        f"Share of calls direct both ways, seconds from answer to direct: median (95th percentile); {runs:,} virtual runs a field; rows call columns",
        "Below: calls in namespaces; what caller and callee waited for the first audio, and from the callee's answer beside standard ICE",
    ]
    with open(picture, "w", encoding="utf-8") as file:
        file.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="Helvetica, Arial, sans-serif" fill="#222">\n'
            '<rect width="100%" height="100%" fill="#fff"/>\n'
        )
        file.write("\n".join([text(8, 22 + 18 * line, words, 13, "start") for line, words in enumerate(heading)] + out) + "\n</svg>\n")
    missed = [(row, what) for row in rows + wire for what in promises(row)]
    for row, what in missed:
        print(f'{row["network"]}, {row["a"]} to {row["b"]}, {row["limiter"]}, loss {row["loss"]}: {what}', file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
