"""Compares the fields that the plugin logs with those that docs/logging.md explains, in both directions.

Read are the macros of tracing in what is compiled into the plugin, without tests. What flocker-embedded logs is about
datasets and nodes of Flocker and has no page.

usage: check_log_fields.py [ROOT]
"""

import re
import sys
from pathlib import Path

from check_layers import production_code

PAGE = "docs/logging.md"
CRATES = ("src", "flocker-client/src", "host-fs/src", "supervised-tasks/src", "grpc-authority/src")
# What every line has, and what the log adds to each line that names a node.
ALWAYS = {"timestamp", "level", "message", "target", "node.host"}
MACRO = re.compile(r"tracing::(?:trace|debug|info|warn|error)(?:_span)?!\s*\(|tracing::\$at!\s*\(")
NAMED = re.compile(r"(?:^|,)\s*([a-z_]+(?:\.[a-z_]+)*)\s*=(?!=)")
SHORT = re.compile(r"(?:^|,)\s*[%?]?([a-z_]+)\s*(?=,)")


def arguments(text: str, start: int) -> str:
    """Returns what is between the parenthesis before `start` and its partner, without nested ones."""
    depth, outer = 1, []
    for character in text[start:]:
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0:
                break
        elif depth == 1:
            outer.append(character)
    return "".join(outer)


def fields(text: str) -> set[str]:
    """Returns the names of the fields in all macros of a file: before the text of the message, which is empty here."""
    found = set()
    for macro in MACRO.finditer(text):
        inside = arguments(text, macro.end()).split('""', 1)
        # In a span the first text is its name, and the fields follow.
        is_span = "_span" in macro.group()
        listed = inside[-1] if is_span else inside[0]
        found |= set(NAMED.findall(listed)) | (set() if is_span else set(SHORT.findall(listed)))
    return found - {"parent"}


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    used = set()
    for crate in CRATES:
        for path in sorted((root / crate).rglob("*.rs")):
            if "tests" not in path.parts and path.name != "tests.rs":
                used |= fields(production_code(path.read_text()))
    page = (root / PAGE).read_text()
    explained = set(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE)) - ALWAYS
    problems = [f"{PAGE} does not explain the field {name}" for name in sorted(used - explained)]
    problems += [f"{PAGE} explains the field {name}, which nothing logs" for name in sorted(explained - used)]
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(1)
    print(f"{len(used)} fields are logged, and all are explained")


if __name__ == "__main__":
    main()
