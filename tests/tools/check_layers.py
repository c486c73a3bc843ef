"""Holds the imports of src/ to the layers that ARCHITECTURE.md draws, and to having no circle.

The table under the heading "Layers" of that page is read from there, so that the page cannot lie. A module imports from
layers below its own and from those its row names; inside a folder, and between modules of one layer, imports form no
circle. What only tests import does not count.

usage: check_layers.py [ROOT]
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

HEADING = "## Layers"
# A path of the crate, as far as it names modules: a list in braces is read item by item.
IMPORT = re.compile(r"\b(?:pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
INLINE = re.compile(r"(?<![\w:])((?:crate|super|self)(?:::\w+)+)")


@dataclass(frozen=True)
class Layer:
    """A row of the table: its depth, and the modules beside those below that its modules may use."""

    depth: int
    also: frozenset[str]


def read_layers(page: Path) -> dict[str, Layer]:
    """Returns the layer of each module at the top of src/."""
    text = page.read_text()
    if HEADING not in text:
        sys.exit(f"{page}: there is no heading {HEADING!r}")
    layers = {}
    for line in text.split(HEADING, 1)[1].split("\n## ", 1)[0].splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) < 4 or not cells[0].isdigit():
            continue
        also = frozenset(re.findall(r"`([^`]+)`", cells[3]))
        for name in re.findall(r"`src/(\w+)(?:\.rs|/)`", cells[1]):
            layers[name] = Layer(int(cells[0]), also)
    if not layers:
        sys.exit(f"{page}: the table below {HEADING!r} names no module of src/")
    return layers


def production_code(text: str) -> str:
    """Returns the code without comments, texts and what only tests or fuzzing compile."""
    text = re.sub(r'r#"(?s:.*?)"#|"(?:\\(?s:.)|[^"\\])*"', '""', text)
    text = re.sub(r"//[^\n]*", "", text)
    for attribute in (r"#\[cfg\(test\)\]", r"#\[cfg\(any\(test, fuzzing\)\)\]"):
        text = re.sub(attribute + r"\s*(?:#\[[^\]]*\]\s*)*[^;{]*;", "", text)
        while match := re.search(attribute + r"[^;{]*\{", text):
            text = text[: match.start()] + text[closing(text, match.end()) :]
    return text


def closing(text: str, start: int) -> int:
    """Returns where the block ends whose opening brace is before `start`."""
    depth = 1
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    return len(text)


def items(tree: str, prefix: str = "") -> list[str]:
    """Returns the paths of a `use`, with lists in braces written out."""
    tree = tree.strip()
    if "{" not in tree:
        return [prefix + tree.split(" as ")[0].strip()]
    head, inner = tree.split("{", 1)
    inner = inner[: closing(inner, 0) - 1]
    paths, depth, start = [], 0, 0
    for index, character in enumerate(inner + ","):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            if inner[start:index].strip():
                paths += items(inner[start:index], prefix + head.strip())
            start = index + 1
    return paths


class Source:
    """The modules of src/ and their imports."""

    def __init__(self, root: Path):
        self.root = root
        self.files = {self.module(path): path for path in sorted(root.rglob("*.rs")) if path.name not in ("lib.rs",)}
        self.code = {name: production_code(path.read_text()) for name, path in self.files.items()}
        lib = (root / "lib.rs").read_text()
        self.top = set(re.findall(r"\bmod (\w+);", lib))
        self.built = set(re.findall(r"\bmod (\w+);", production_code(lib)))

    def module(self, path: Path) -> tuple[str, ...]:
        """Returns the path of the module that a file holds."""
        parts = list(path.relative_to(self.root).with_suffix("").parts)
        return tuple(parts[:-1] if parts[-1] == "mod" else parts)

    def compiled(self, name: tuple[str, ...]) -> bool:
        """Returns whether the module is declared outside of tests."""
        for length in range(1, len(name)):
            parent = self.code.get(name[:length])
            if parent is None or not re.search(rf"\bmod {name[length]};", parent):
                return False
        return name[0] in self.built or name == ("main",)

    def resolve(self, name: tuple[str, ...], path: str) -> tuple[str, ...] | None:
        """Returns the module that a path leads to, or nothing when it leaves the crate."""
        words = path.replace(" ", "").split("::")
        if words[0] in ("crate", "flocker_csi"):
            base: tuple[str, ...] = ()
        elif words[0] in ("super", "self"):
            base = name
            while words and words[0] in ("super", "self"):
                base = base[:-1] if words[0] == "super" else base
                words = words[1:]
            words = ["", *words]
        elif (*name, words[0]) in self.files:
            base, words = name, ["", *words]
        else:
            return None
        for word in words[1:]:
            if (*base, word) not in self.files:
                break
            base = (*base, word)
        return base

    def imports(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Returns the imports as pairs of modules."""
        found = set()
        for name, code in self.code.items():
            if not self.compiled(name):
                continue
            paths = [path for tree in IMPORT.findall(code) for path in items(tree)] + INLINE.findall(code)
            for path in paths:
                target = self.resolve(name, path)
                if target and target != name:
                    found.add((name, target))
        return sorted(found)


def circles(edges: set[tuple[str, str]]) -> list[list[str]]:
    """Returns one circle for each group of nodes that reach each other."""
    after: dict[str, set[str]] = {}
    for source, target in edges:
        after.setdefault(source, set()).add(target)
    found, settled = [], set()
    for start in sorted(after):
        path, stack = [start], [iter(sorted(after[start]))]
        while stack:
            node = next(stack[-1], None)
            if node is None:
                settled.add(path.pop())
                stack.pop()
            elif node in path:
                found.append([*path[path.index(node) :], node])
                return found + circles({edge for edge in edges if edge != (path[-1], node)})
            elif node not in settled:
                path.append(node)
                stack.append(iter(sorted(after.get(node, ()))))
    return found


def main() -> None:
    """Prints every import that the layers forbid and every circle, and fails if there is one."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    layers = read_layers(root / "ARCHITECTURE.md")
    source = Source(root / "src")
    problems = [f"src/{name} stands in no row of the table" for name in sorted(source.top - layers.keys())]
    problems += [f"src/{name} stands in the table, but is no module" for name in sorted(layers.keys() - source.top - {"main", "lib"})]
    imports = source.imports()
    shown = lambda name: source.files[name].relative_to(root)  # noqa: E731
    siblings: dict[tuple[str, ...], dict[tuple[str, str], tuple]] = {}
    for name, target in imports:
        ours, theirs = layers.get(name[0]), layers.get(target[0])
        if name[0] == "main" or not ours or not theirs or name[0] == target[0]:
            pass
        elif theirs.depth <= ours.depth and target[0] not in ours.also:
            problems.append(
                f"{shown(name)} imports from {shown(target)}: layer {ours.depth} may not use layer {theirs.depth}"
            )
        shared = 0
        while shared < min(len(name), len(target)) and name[shared] == target[shared]:
            shared += 1
        if shared < min(len(name), len(target)):
            edge = (name[shared], target[shared])
            siblings.setdefault(name[:shared], {}).setdefault(edge, (name, target))
    ring_count = 0
    for folder, edges in sorted(siblings.items()):
        for ring in circles(set(edges)):
            ring_count += 1
            steps = [edges[pair] for pair in zip(ring, ring[1:])]
            path = "; ".join(f"{shown(name)} imports from {shown(target)}" for name, target in steps)
            problems.append(f"a circle in src/{'/'.join(folder)}: {path}")
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(1)
    longest = max(source.files.values(), key=lambda path: len(path.read_text().splitlines()))
    print(
        f"{len(source.files)} files, {len(source.top)} modules at the top, {len(imports)} imports, {ring_count} circles; "
        f"the longest file is {longest.relative_to(root)}"
    )


if __name__ == "__main__":
    main()
