"""What tests/tools/monitoring.sh asks of Prometheus, and what it gives to it.

usage: monitoring.py config DIRECTORY TARGET...   writes Prometheus' configuration and rules, with short times
       monitoring.py text                         rewrites OpenMetrics on stdin as the older text format
       monitoring.py scraped ADDRESS NUMBER       fails unless so many plugins are up
       monitoring.py firing ADDRESS [ALERT]       fails unless exactly this alert is firing, or none
       monitoring.py dashboard ADDRESS SEEN       fails until each query of the dashboard has returned data
"""

import json
import math
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy/monitoring"
# An operator's minutes and hours, in a test of seconds.
INTERVAL, HOLD, RANGE = "500ms", "2s", "10s"


def ask(address: str, path: str, **parameters: str) -> dict:
    """Returns what Prometheus answers."""
    url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def config(directory: str, *targets: str) -> bool:
    """Writes the shipped configuration and rules, with these targets and other times."""
    settings = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    settings["global"] = {key: INTERVAL for key in settings["global"]}
    [job] = settings["scrape_configs"]
    job["static_configs"] = [{"targets": [target], "labels": {"node": f"db-{n}"}} for n, target in enumerate(targets, 1)]
    rules = yaml.safe_load((DEPLOY / "rules.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = re.sub(r"\[\d+[mh]\]", f"[{RANGE}]", rule["expr"])
            rule["expr"] = re.sub(r"offset \d+[mh]", f"offset {RANGE}", rule["expr"])
            if "for" in rule:
                rule["for"] = HOLD
    for name, content in (("prometheus.yaml", settings), ("rules.yaml", rules)):
        (Path(directory) / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return True


def text() -> bool:
    """Prints OpenMetrics as promtool reads it: there, a counter is described by the name of its series, with _total."""
    exposition = sys.stdin.read()
    counters = set(re.findall(r"^# TYPE (\w+) counter$", exposition, re.MULTILINE))
    for line in exposition.splitlines():
        described = re.match(r"# (HELP|TYPE) (\w+) (.*)", line)
        if described and described[2] in counters:
            line = f"# {described[1]} {described[2]}_total {described[3]}"
        if not line.startswith(("# UNIT", "# EOF")):
            print(line)
    return True


def scraped(address: str, number: str) -> bool:
    """Says whether so many plugins are up, and the rules are loaded."""
    result = ask(address, "query", query='sum(up{job="flocker-csi"})')["result"]
    rules = [rule for group in ask(address, "rules")["groups"] for rule in group["rules"]]
    wanted = yaml.safe_load((DEPLOY / "rules.yaml").read_text())["groups"]
    healthy = [rule for rule in rules if rule["health"] == "ok"]
    return [one["value"][1] for one in result] == [number] and len(healthy) == sum(len(group["rules"]) for group in wanted)


def firing(address: str, *names: str) -> bool:
    """Says whether these alerts are firing, and no others."""
    alerts = [alert for alert in ask(address, "alerts")["alerts"] if alert["state"] == "firing"]
    for alert in alerts:
        print(f"{alert['labels']['alertname']}: {alert['annotations']['description']}")
    return sorted(alert["labels"]["alertname"] for alert in alerts) == sorted(names)


def dashboard(address: str, seen: str) -> bool:
    """Asks each query that has not returned data yet, and notes in `seen` which did."""
    noted = Path(seen)
    done = set(noted.read_text().splitlines()) if noted.exists() else set()
    panels = json.loads((DEPLOY / "dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    for query in (query for query in queries if query not in done):
        shown = query.replace("$__rate_interval", RANGE).replace("$job", "flocker-csi").replace("$instance", ".*")
        values = [float(one["value"][1]) for one in ask(address, "query", query=shown)["result"]]
        if any(not math.isnan(value) for value in values):
            done.add(query)
    noted.write_text("\n".join(done))
    missing = [query for query in queries if query not in done]
    print("\n".join(["without data:", *missing]) if missing else f"{len(queries)} queries")
    return not missing


COMMANDS = {command.__name__: command for command in (config, text, scraped, firing, dashboard)}

if __name__ == "__main__":
    sys.exit(not COMMANDS[sys.argv[1]](*sys.argv[2:]))
