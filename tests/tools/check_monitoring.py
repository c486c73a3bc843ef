"""Compares the rules and the dashboard of deploy/monitoring with docs/metrics.md, the unit tests and docs/runbook.md.

A query that uses a metric or a label that no plugin has returns nothing, and an alert made of it never fires.

usage: check_monitoring.py [ROOT]
"""

import json
import re
import sys
from pathlib import Path

import yaml

MOST_ALERTS = 15
# What Prometheus records itself about each target.
OF_PROMETHEUS = {"up"}
SEVERITIES = {"critical", "warning"}
OF_HISTOGRAMS = ("_bucket", "_count", "_sum")
# Labels that are not the plugin's: of Prometheus, of histograms, of build_info, and of one alert.
OTHER_LABELS = {"job", "instance", "le", "version", "writes"}
QUOTED = re.compile(r'"[^"]*"')


def exported(page: str) -> set[str]:
    """Returns the names of all series of the plugin and of an embedded Flocker."""
    names = set()
    for name, kind in re.findall(r"^\| `(flocker_(?:csi|embedded)_\w+)` \| (\w+) \|", page, re.MULTILINE):
        names |= {name + end for end in OF_HISTOGRAMS} if kind == "histogram" else {name}
    return names


def labels(page: str) -> set[str]:
    """Returns the labels that the page explains."""
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    return {label for row in rows for label in re.findall(r"`(\w+)`", row)} | OTHER_LABELS


def metrics_of(query: str) -> set[str]:
    """Returns the metrics that a query names."""
    return set(re.findall(r"\bflocker_(?:csi|embedded)_\w+|\bup\b", QUOTED.sub('""', query)))


def labels_of(query: str) -> set[str]:
    """Returns the labels that a query selects or groups by."""
    bare = QUOTED.sub('""', query)
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"\"", bare)
    grouped = re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", bare)
    return set(selected) | {label for group in grouped for label in re.findall(r"\w+", group)}


def alerts(root: Path) -> list[dict]:
    """Returns the alerts of the rules."""
    groups = yaml.safe_load((root / "deploy/monitoring/rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries(root: Path) -> list[tuple[str, str]]:
    """Returns every query of the rules and of the dashboard, with where it is."""
    found = [(f"alert {rule['alert']}", rule["expr"]) for rule in alerts(root)]
    dashboard = json.loads((root / "deploy/monitoring/dashboard.json").read_text())
    for panel in dashboard["panels"]:
        found += [(f"panel {panel['title']!r}", target["expr"]) for target in panel.get("targets", [])]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found.append((f"variable {variable['name']}", variable["query"]))
    return found


def problems_of_alerts(root: Path) -> list[str]:
    """Returns what the alerts lack."""
    rules = alerts(root)
    tests = yaml.safe_load((root / "deploy/monitoring/rules-test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    fires = {case["alertname"] for case in cases if case.get("exp_alerts")}
    silent = {case["alertname"] for case in cases if not case.get("exp_alerts")}
    sections = re.findall(r"^#+ (FlockerCsi\w+)$", (root / "docs/runbook.md").read_text(), re.MULTILINE)
    names = [rule["alert"] for rule in rules]
    problems = []
    if len(rules) > MOST_ALERTS:
        problems.append(f"there are {len(rules)} alerts, at most {MOST_ALERTS}")
    for rule in rules:
        name = rule["alert"]
        if rule["labels"].get("severity") not in SEVERITIES:
            problems.append(f"{name}: the severity is none of {', '.join(sorted(SEVERITIES))}")
        for annotation in ("summary", "description"):
            if not rule["annotations"].get(annotation):
                problems.append(f"{name}: no {annotation}")
        if rule["annotations"].get("runbook_url") != f"docs/runbook.md#{name.lower()}":
            problems.append(f"{name}: runbook_url is not its section of docs/runbook.md")
        if name not in fires or name not in silent:
            problems.append(f"{name}: no unit test in which it fires, or none in which it does not")
    problems += [f"{name}: no section in docs/runbook.md" for name in names if name not in sections]
    problems += [f"docs/runbook.md explains {name}, which is no alert" for name in sections if name not in names]
    problems += [f"{name} occurs twice" for name in set(names) if names.count(name) > 1]
    return problems


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    page = (root / "docs/metrics.md").read_text()
    known, known_labels = exported(page), labels(page)
    problems = problems_of_alerts(root)
    used = set()
    for place, query in queries(root):
        used |= metrics_of(query)
        problems += [f"{place}: there is no metric {name}" for name in sorted(metrics_of(query) - known - OF_PROMETHEUS)]
        problems += [f"{place}: there is no label {name}" for name in sorted(labels_of(query) - known_labels)]
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(1)
    shown = len(used & known)
    print(f"{len(alerts(root))} alerts and {len(queries(root))} queries use {shown} series of docs/metrics.md and no others")


if __name__ == "__main__":
    main()
