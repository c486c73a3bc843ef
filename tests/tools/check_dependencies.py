"""Holds the dependency tree to the bans, licences and sources that deny.toml allows, and the program to the features it
needs.

It stands in for `cargo deny check bans licenses sources`, which takes longer to build than this whole project.

usage: check_dependencies.py
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Features that only tests need, by crate.
FOR_TESTS = {"tokio": "test-util"}


def packages(triples: list[str]) -> set[tuple[str, str, str, str]]:
    """Returns name, version, origin and licence of everything that is built, build scripts and tests included.

    The origin is empty for the default registry, and a path or an address otherwise.
    """
    command = ["cargo", "tree", "--locked", "--workspace", "--all-features", "--prefix", "none"]
    command += ["--edges", "normal,build,dev", "--format", "{p}|{l}"]
    for triple in triples:
        command += ["--target", triple]
    tree = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found = set()
    for line in tree.stdout.splitlines():
        package, _, licence = line.removesuffix(" (*)").partition("|")
        if not package:
            continue
        name, version, *rest = package.split(" ", 2)
        origin = rest[0].replace("(proc-macro)", "").strip(" ()") if rest else ""
        found.add((name, version.removeprefix("v"), origin, licence.strip()))
    return found


def in_program() -> list[tuple[str, str]]:
    """Returns each crate with a feature that only tests need, and that feature, where `cargo build` has it."""
    command = ["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}|{f}"]
    tree = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found = set()
    for line in tree.stdout.splitlines():
        package, _, features = line.removesuffix(" (*)").partition("|")
        name = package.split(" ", 1)[0]
        if FOR_TESTS.get(name) in features.split(","):
            found.add((name, FOR_TESTS[name]))
    return sorted(found)


def licence_allowed(expression: str, allowed: set[str]) -> bool:
    """Returns whether the allowed licences alone satisfy an SPDX expression."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def alternatives() -> bool:
        met = conjunction()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = conjunction() or met
        return met

    def conjunction() -> bool:
        met = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = single() and met
        return met

    def single() -> bool:
        token = tokens.pop(0)
        if token == "(":
            met = alternatives()
            tokens.pop(0)
            return met
        if tokens and tokens[0] == "WITH":
            token = f"{token} {tokens.pop(0)} {tokens.pop(0)}"
        return token in allowed

    return bool(tokens) and alternatives()


def main() -> int:
    """Prints every violation and returns the exit code."""
    policy = tomllib.loads((ROOT / "deny.toml").read_text())
    banned = {ban["crate"]: ban["reason"] for ban in policy["bans"]["deny"]}
    allowed = set(policy["licenses"]["allow"])
    tree = packages(policy["graph"]["targets"])
    failed = 0
    for name, version, origin, licence in sorted(tree):
        problems = []
        if name in banned:
            problems.append(f"is banned: {banned[name]}; see: cargo tree --invert {name}")
        if origin and not Path(origin).is_relative_to(ROOT):
            problems.append(f"comes from {origin}, not from the default registry or this workspace")
        if not licence_allowed(licence, allowed):
            problems.append(f"has the licence {licence or '(none)'}, which is not allowed")
        for problem in problems:
            print(f"  FAILED  {name} {version} {problem}")
        failed += bool(problems)
    for name, feature in in_program():
        print(f"  FAILED  {name} has the feature {feature} in the program, and only tests need it")
        failed += 1
    print(f"{len(tree) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
