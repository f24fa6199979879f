#!/usr/bin/env python3
"""Figures of the code's shape: how long, how wide, how often in circles. Reads Rust as text, builds nothing.

usage: shape.py [-v] [--since COMMIT] [FOLDER]     (the repository's root; -v names each function, struct and file that is counted)

What is counted, in code that is no test unless said otherwise:
  functions   with six parameters or more (`self` is one), and longer than 100 lines
  files       longer than 600 and 400 lines, tests too
  structs     with more than 15 fields
  sides       parameters and fields of type usize that are named as a side is, and `1 - side`
  types       in how many files one has an `impl`, of traits too; two of one name are told apart by where they are defined
  circles     files of a crate that import each other, in one folder or across folders
  doubles     of tests: `impl Ports`, `impl Policy`, `#[path]`; lines of test code, and with --since how many of them are
              tests that COMMIT does not have (by test_names.py) and what nobody but these names, as HEAD is
"""

import collections
import os
import re
import sys
from pathlib import Path

SIDES = "side|sides|from|to|party|leg|end|other|far|near|one|who|whose|sender|receiver|mover|holder|consumer"
SKIPPED = {"target", ".git", "var", "node_modules"}


def blank(text):
    """The same text, as many characters and lines, without what stands in comments and literals."""
    token = re.compile(r'//[^\n]*|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\\'\n])\'|/\*', re.S)
    out, at = [], 0
    while found := token.search(text, at):
        start, end = found.span()
        if found.group() == "/*":  # they nest
            depth = 1
            while depth and (mark := re.compile(r"/\*|\*/").search(text, end)):
                depth += 1 if mark.group() == "/*" else -1
                end = mark.end()
            end = len(text) if depth else end
        elif found.group()[0] in "br" and start and (text[start - 1].isalnum() or text[start - 1] == "_"):
            end = start + 1  # the last letter of a name
            out.append(text[at:end])
            at = end
            continue
        out.append(text[at:start] + re.sub(r"[^\n]", " ", text[start:end]))
        at = end
    return "".join(out) + text[at:]


def closing(text, start):
    """Where the bracket at `start` is closed, or the end of the text."""
    opens, depth = text[start], 0
    shuts = {"(": ")", "{": "}", "[": "]"}[opens]
    for mark in re.compile(re.escape(opens) + "|" + re.escape(shuts)).finditer(text, start):
        depth += 1 if mark.group() == opens else -1
        if not depth:
            return mark.start()
    return len(text)


def without_tests(text):
    """Blanks modules and functions that are built for tests only; names the files that are."""
    files = set(re.findall(r"#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?mod (\w+);", text))
    for found in reversed(list(re.finditer(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(?:mod|fn|impl|struct|enum)\b[^;{]*\{", text))):
        end = closing(text, found.end() - 1) + 1
        text = text[: found.start()] + re.sub(r"[^\n]", " ", text[found.start() : end]) + text[end:]
    return text, files


def parts(text):
    """What commas part at the outermost level."""
    found, depth, start = [], 0, 0
    for at, mark in enumerate(text):
        if mark in "([{<":
            depth += 1
        elif mark in ")]}" or mark == ">" and text[at - 1] not in "-=":
            depth -= 1
        elif mark == "," and not depth:
            found.append(text[start:at])
            start = at + 1
    return [part.strip() for part in found + [text[start:]] if part.strip()]


def generics(text, at):
    """Past `<...>` and blanks, if they stand at `at`."""
    while at < len(text) and text[at].isspace():
        at += 1
    if at < len(text) and text[at] == "<":
        depth = 0
        while at < len(text):
            depth += (text[at] == "<") - (text[at] == ">" and text[at - 1] not in "-=")
            at += 1
            if not depth:
                break
    return at


def functions(text):
    """(name, line, lines, parameters) of each."""
    for found in re.finditer(r"\bfn (\w+)", text):
        opening = generics(text, found.end())
        while opening < len(text) and text[opening].isspace():
            opening += 1
        if opening >= len(text) or text[opening] != "(":
            continue
        end = closing(text, opening)
        body = re.compile(r"[{;]").search(text, end)
        last = closing(text, body.start()) if body and body.group() == "{" else end
        line = text.count("\n", 0, found.start()) + 1
        yield found.group(1), line, text.count("\n", found.start(), last) + 1, parts(text[opening + 1 : end])


def structs(text):
    """(name, line, fields) of each that has named ones."""
    for found in re.finditer(r"\bstruct (\w+)", text):
        opening = re.compile(r"[{;(]").search(text, generics(text, found.end()))
        if opening and opening.group() == "{":
            inside = text[opening.end() : closing(text, opening.start())]
            fields = [re.sub(r"#\[[^\]]*\]", "", part).strip() for part in parts(inside)]
            yield found.group(1), text.count("\n", 0, found.start()) + 1, [field for field in fields if field]


def implemented(text):
    """The last name of each type that has an `impl`."""
    for found in re.finditer(r"^[ \t]*(?:unsafe )?impl\b", text, re.M):
        start = generics(text, found.end())
        head = text[start : text.find("{", start)]
        head = re.split(r"\bwhere\b", head)[0]
        kind = re.split(r"\bfor\b(?!\s*<)", head)[-1]
        if name := re.match(r"\s*(?:&(?:'\w+ )?(?:mut )?)?(?:dyn )?([\w:]+)", kind):
            yield name.group(1)


class Crate:
    """The sources of one `src`: what is no test, and its modules."""

    def __init__(self, root):
        self.root, self.texts, test_files = root, {}, set()
        for path in sorted(root.rglob("*.rs")):
            self.texts[path], more = without_tests(blank(path.read_text()))
            folder = path.parent if path.stem in ("mod", "lib", "main") else path.parent / path.stem
            test_files |= {folder / f"{name}.rs" for name in more} | {folder / name / "mod.rs" for name in more}
        tests = {path for path in self.texts if path in test_files or any(test.parent / test.stem in path.parents for test in test_files if test.stem != "mod")}
        self.tests = tests
        self.texts = {path: text for path, text in self.texts.items() if path not in tests}
        self.modules = {self.module(path): path for path in self.texts}

    def module(self, path):
        name = "::".join(path.relative_to(self.root).with_suffix("").parts)
        return re.sub(r"(::|^)(mod|lib|main)$", "", name)

    def resolve(self, names):
        for length in range(len(names), 0, -1):
            if "::".join(names[:length]) in self.modules:
                return "::".join(names[:length])
        return ""

    def imports(self, module):
        """(names of a path, from the crate's root) of each path in the module that begins with crate, super or self."""
        own = module.split("::") if module else []
        for found in re.finditer(r"\b(crate|super|self)((?:::\w+)*)(?:::(\{))?", self.texts[self.modules[module]]):
            text = self.texts[self.modules[module]]
            names = [name for name in found.group(2).split("::") if name]
            base = []
            if found.group(1) == "super":
                base = own[:-1]
                while names and names[0] == "super":
                    names, base = names[1:], base[:-1]
            elif found.group(1) == "self":
                base = own
            leaves = [[]]
            if found.group(3):
                leaves = flatten(text[found.end() : closing(text, found.end() - 1)])
            for leaf in leaves:
                yield base + names + leaf

    def circles(self):
        graph = collections.defaultdict(set)
        for module in self.modules:
            for names in self.imports(module):
                target = self.resolve(names)
                # A file and the folder of its parts are one idea: what a part takes from above is no arrow.
                if module and target and target != module:
                    graph[module].add(target)
        return [ring for ring in rings(self.modules, graph) if len(ring) > 1]

    def owner(self, path, name, defined):
        """Where the type is defined that this file calls so."""
        places = defined.get(name.split("::")[-1], [])
        if len(places) < 2:
            return places[0] if places else None
        module = self.module(path)
        if module in places:
            return module
        for names in self.imports(module):
            if names and names[-1] == name.split("::")[-1] and self.resolve(names) in places:
                return self.resolve(names)
        above = [place for place in places if module.startswith(place)]
        return max(above, key=len) if above else places[0]


def flatten(inside):
    """The paths of `{a, b::{c, d}}`."""
    found = []
    for part in parts(inside):
        part = part.split(" as ")[0].strip()
        if "{" in part:
            head = [name for name in part[: part.index("{")].split("::") if name.strip()]
            found += [head + leaf for leaf in flatten(part[part.index("{") + 1 : part.rindex("}")])]
        else:
            found.append([name.strip() for name in part.split("::") if name.strip() not in ("", "self")])
    return found


def rings(nodes, graph):
    """Strongly connected components (Tarjan)."""
    order, low, stack, found = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in graph[node]:
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            ring = []
            while not ring or ring[-1] != node:
                ring.append(stack.pop())
            found.append(sorted(ring))

    for node in nodes:
        if node not in order:
            visit(node)
    return found


def sources(root):
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(".rs"))


def of_tests(path):
    return any(part in ("tests", "benches", "examples", "fuzz", "play") for part in path.parts)


def of_new_tests(commit, tested):
    """{path: lines} of the tests that are new since the commit, and of what only they name: functions, and files of tests as a whole."""
    import test_names  # which reads with this file

    rows = test_names.table(test_names.tests(commit), test_names.tests("HEAD"), False)
    fresh = {(name.split("::")[0], name.split("::")[-1]) for kind, _, name in rows if kind == "new"}
    texts = {path: text for path, text in test_names.sources("HEAD") if path in tested or "#[cfg(test)]" in text}
    spans, said, items, others = {}, collections.defaultdict(set), collections.defaultdict(list), set()

    def scope(path, line):
        """What the paths begin with from which something of this line can be named."""
        return path if "pub" not in line else path.rpartition("/")[0] + "/" if "pub(" in line else ""

    for path, text in texts.items():
        code, lines = blank(text), text.splitlines()
        named = re.sub(r"\b(?:use|mod) [^;{]*(?:\{[^;]*\})?;", lambda found: re.sub(r"[^\n]", " ", found.group()), code)
        for number, line in enumerate(named.split("\n"), 1):
            for name in re.findall(r"\w+", line):
                said[name].add((path, number))
        for name, line, length, _ in functions(code):
            first = line
            while first > 1 and re.match(r"\s*(#\[|//)", lines[first - 2]):
                first -= 1
            space = [""] == lines[line + length - 1 : line + length]
            key = path, name, scope(path, lines[line - 1].split("fn")[0])
            spans[key] = spans.get(key, set()) | {(path, number) for number in range(first, line + length + space)}
        others |= {path for function in test_names.TEST.findall(code) if (path, function) not in fresh}
        for found in re.finditer(r"^pub(?:\([^)]*\))? (?:fn|struct|enum|trait|const|type) (\w+)", code, re.M):
            items[path].append((found.group(1), scope(path, found.group())))
    counted = set().union(*(span for (path, name, _), span in spans.items() if (path, name) in fresh))
    before = -1
    while before < len(counted):
        before = len(counted)
        for (path, name, seen), span in spans.items():
            used = {place for place in said[name] - span if place[0].startswith(seen)}
            counted |= span if used and used <= counted else set()
        for path in ({path for path, _ in counted} & tested) - others:
            named = {place for name, seen in items[path] for place in said[name] if place[0].startswith(seen)}
            if all(place in counted or place[0] == path for place in named):
                counted |= {(path, number) for number in range(1, texts[path].count("\n") + 1)}
    return collections.Counter(path for path, _ in counted)


def main():
    sys.setrecursionlimit(10_000)
    words = sys.argv[1:]
    verbose = "-v" in words
    since = words.pop(words.index("--since") + 1) if "--since" in words[:-1] else None
    os.chdir(next((word for word in words if not word.startswith("-")), "."))
    paths = list(sources("."))
    roots = sorted({manifest.parent / "src" for manifest in Path(".").rglob("Cargo.toml")
                    if not SKIPPED & set(manifest.parts) and not of_tests(manifest) and (manifest.parent / "src").is_dir()})
    crates = [Crate(root) for root in roots]

    every, wide, sides, opposites = [], [], 0, 0
    for crate in crates:
        for path, text in crate.texts.items():
            every += [(path, *function) for function in functions(text)]
            wide += [(path, name, line, len(fields)) for name, line, fields in structs(text) if len(fields) > 15]
            sides += len(re.findall(rf"\b(?:{SIDES}): usize\b", text))
            opposites += len(re.findall(r"\b1 - (?:usize::from\()?[a-z_.]+\b", text))
    many = [function for function in every if len(function[4]) >= 6]
    long = [function for function in every if function[3] > 100]
    print(f"functions {len(every)}: {len(many)} with six parameters or more ({100 * len(many) / max(len(every), 1):.2f} %), {len(long)} over 100 lines")
    lines = {path: path.read_text().count("\n") for path in paths}
    print(f"files {len(lines)}: {sum(count > 600 for count in lines.values())} over 600 lines, {sum(count > 400 for count in lines.values())} over 400")
    print(f"structs with more than 15 fields: {len(wide)}")
    print(f"sides as usize: {sides}; `1 - side`: {opposites}")

    for crate in crates:
        defined, held = collections.defaultdict(list), collections.defaultdict(set)
        for path, text in crate.texts.items():
            for found in re.finditer(r"\b(?:struct|enum|union) (\w+)", text):
                defined[found.group(1)].append(crate.module(path))
        for path, text in crate.texts.items():
            for name in implemented(text):
                if owner := crate.owner(path, name, defined):
                    held[owner, name.split("::")[-1]].add(path)
                elif owner is not None:
                    held["", name.split("::")[-1]].add(path)
        for (owner, name), files in sorted(held.items(), key=lambda item: -len(item[1])):
            if len(files) > 4:
                print(f"impl of {crate.root.parent}: {owner + '::' if owner else ''}{name} in {len(files)} files")
    for crate in crates:
        for ring in crate.circles():
            folders = {module.rpartition("::")[0] for module in ring}
            where = f"across {len(folders)} folders" if len(folders) > 1 else "in one folder"
            print(f"circle of {crate.root.parent}: {len(ring)} files {where}: {', '.join(ring)}")

    tested = [path for path in paths if of_tests(path)] + [path for crate in crates for path in crate.tests]
    texts = {path: blank(path.read_text()) for path in paths}
    for trait in ("Ports", "Policy"):
        places = [path for path in tested if re.search(rf"\bimpl\b[^{{;]*\b{trait} for\b", texts[path])]
        print(f"impl {trait} in tests: {len(places)}" + (": " + ", ".join(map(str, places)) if verbose else ""))
    borrowed = [path for path in paths if re.search(r"#\[path\b", texts[path])]
    print(f"#[path]: {len(borrowed)}" + (": " + ", ".join(map(str, borrowed)) if verbose else ""))
    inside = sum(path.read_text().count("\n") - sum(bool(line.strip()) for line in text.split("\n")) - path.read_text().count("\n\n")
                 for crate in crates for path, text in crate.texts.items() if "#[cfg(test)]" in path.read_text())
    print(f"lines of test code: {sum(path.read_text().count(chr(10)) for path in set(tested))} in files of their own, about {max(inside, 0)} in modules (comments counted)")
    if since:
        own = {str(path) for path in tested}
        new = of_new_tests(since, own)
        inside = sum(count for path, count in new.items() if path not in own)
        print(f"  of new tests since {since}: {sum(new.values()) - inside} in files of their own, {inside} in modules"
              + "".join(f"\n    {path}: {count}" for path, count in new.most_common() if verbose))

    if verbose:
        for path, name, line, _, given in sorted(many, key=lambda function: -len(function[4])):
            print(f"  {path}:{line} {name}: {len(given)} parameters")
        for path, name, line, length, _ in long:
            print(f"  {path}:{line} {name}: {length} lines")
        for path, name, line, count in wide:
            print(f"  {path}:{line} struct {name}: {count} fields")
        for path, count in sorted(lines.items(), key=lambda item: -item[1]):
            if count > 600:
                print(f"  {path}: {count} lines")


if __name__ == "__main__":
    main()
