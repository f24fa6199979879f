#!/usr/bin/env python3
"""What became of each test between two commits: a table of old and new names. Reads the sources that git keeps, builds nothing.

usage: test_names.py [-v] OLD [NEW]     (commits; NEW is HEAD by itself; -v lists the tests whose name stayed in its place, too)

A test is a function under `#[test]` or `#[tokio::test]`, in `proptest!` too, or a line of a macro whose rule has such a function.
Its name is file::module::function. What is gone is looked for in three ways, in this order:
  moved     the function's name stands, once, in another file or module
  renamed   another function with nearly the same body (SAME of its words in their order)
  gone      none of these: whoever reads the table asks why
The exit status is 1 if any is gone.
"""

import collections
import difflib
import re
import subprocess
import sys

from shape import blank, closing

SAME = 0.75
TEST = re.compile(r"#\[(?:tokio::)?test\b[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub )?(?:async )?fn (\$?\w+)")
LINE = re.compile(r"(?:\A|;)\s*(\w+)\s*:(?!:)")


def git(*words, given=None):
    return subprocess.run(["git", *words], input=given, stdout=subprocess.PIPE, check=True).stdout


def sources(commit):
    """(path, text) of each Rust file."""
    paths = git("ls-tree", "-r", "-z", "--full-tree", "--name-only", commit).decode().split("\0")
    paths = [path for path in paths if path.endswith(".rs")]
    asked = "".join(f"{commit}:{path}\n" for path in paths).encode()
    answer, at = git("cat-file", "--batch", given=asked), 0
    for path in paths:
        end = answer.index(b"\n", at)
        size = int(answer[at:end].split()[-1])
        yield path, answer[end + 1 : end + 1 + size].decode()
        at = end + size + 2


def modules(code):
    """(start, end, name) of each module that is written in the file itself."""
    for found in re.finditer(r"\bmod (\w+)\s*\{", code):
        yield found.end(), closing(code, found.end() - 1), found.group(1)


def made(code):
    """The macros whose rule makes a test of each line."""
    for found in re.finditer(r"\bmacro_rules!\s*(\w+)\s*\{", code):
        rule = code[found.end() : closing(code, found.end() - 1)]
        if any(test.group(1).startswith("$") for test in TEST.finditer(rule)):
            yield found.group(1)


def tests(commit):
    """{name: body} of each test, the body as words."""
    texts = [(path, text, blank(text)) for path, text in sources(commit)]
    macros = {name for _, _, code in texts for name in made(code)}
    called = re.compile(rf"\b(?:{'|'.join(sorted(macros))})!\s*[{{(]") if macros else re.compile(r"(?!)")
    found = {}
    for path, text, code in texts:
        inside = list(modules(code))

        def put(at, function, body):
            place = [name for start, end, name in inside if start <= at < end]
            found["::".join([path, *place, function])] = re.findall(r"\w+|[^\w\s]", body)

        for test in TEST.finditer(code):
            opening = code.find("{", test.end())
            if not test.group(1).startswith("$"):
                put(test.start(), test.group(1), text[opening : closing(code, opening) + 1])
        for call in called.finditer(code):
            start, end = call.end(), closing(code, call.end() - 1)
            lines = list(LINE.finditer(code[start:end]))
            for line, after in zip(lines, [*(line.start() for line in lines[1:]), end - start]):
                put(start + line.start(1), line.group(1), text[start + line.end() : start + after])
    return found


def function(name):
    return name.rsplit("::", 1)[-1]


def moved(old, new):
    """(old, new) where one function's name left a place and one of the same name came."""
    gone, come = collections.defaultdict(list), collections.defaultdict(list)
    for name in old.keys() - new.keys():
        gone[function(name)].append(name)
    for name in new.keys() - old.keys():
        come[function(name)].append(name)
    for name, places in gone.items():
        pairs = [(alike(old[one], new[other]), one, other) for one in places for other in come[name]]
        yield from closest(pairs)


def alike(one, other):
    """Which part of the words is the same in the same order; 0 if it can't be SAME."""
    match = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return match.ratio() if match.real_quick_ratio() >= SAME and match.quick_ratio() >= SAME else 0.0


def closest(pairs):
    """Each name once, the pairs that are most alike first."""
    taken = set()
    for _, one, other in sorted(pairs, key=lambda pair: (-pair[0], pair[1:])):
        if not {("old", one), ("new", other)} & taken:
            taken |= {("old", one), ("new", other)}
            yield one, other


def renamed(old, new):
    """(old, new) where the body is nearly the same."""
    pairs = ((alike(old[one], new[other]), one, other) for one in old for other in new)
    return closest([pair for pair in pairs if pair[0] >= SAME])


def table(old, new, everything):
    """The rows (kind, old name, new name)."""
    rows = [("stayed", name, name) for name in sorted(old.keys() & new.keys())] if everything else []
    left = {name: body for name, body in old.items() if name not in new}
    come = {name: body for name, body in new.items() if name not in old}
    for kind, find in (("moved", moved), ("renamed", renamed)):
        for one, other in sorted(find(left, come)):
            rows.append((kind, one, other))
            del left[one], come[other]
    rows += [("gone", name, "") for name in sorted(left)]
    return rows + [("new", "", name) for name in sorted(come)]


def main():
    words = [word for word in sys.argv[1:] if word != "-v"]
    if not 1 <= len(words) <= 2 or words[0].startswith("-"):
        sys.exit(__doc__.strip())
    old, new = tests(words[0]), tests(words[1] if len(words) > 1 else "HEAD")
    rows = table(old, new, "-v" in sys.argv)
    print("| | old | new |\n| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    kinds = collections.Counter(kind for kind, _, _ in rows)
    stayed = len(old.keys() & new.keys())
    rest = ", ".join(f"{kinds[kind]} {kind}" for kind in ("moved", "renamed", "gone", "new"))
    print(f"\n{len(old)} tests, then {len(new)}: {stayed} stayed, {rest}")
    return 1 if kinds["gone"] else 0


if __name__ == "__main__":
    sys.exit(main())
