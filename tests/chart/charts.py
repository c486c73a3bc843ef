"""Renders of the chart, as documents and as the texts that are kept."""

import functools
import os
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(os.environ.get("TOOLS", ROOT / "target/tools")) / "bin"
CHART = ROOT / "charts/flocker-csi"
VALUES = sorted((ROOT / "tests/chart/values").glob("*.yaml"))
NAMES = [path.stem for path in VALUES]
DEPLOY = ROOT / "deploy/kubernetes"
EXAMPLES = sorted((DEPLOY / "examples").glob("*.yaml"))
# What is rendered does not depend on the version; Helm refuses one that the chart is not for.
KUBERNETES = "1.37.0"

DEPLOY_HEADER = """\
# The chart with its default values, for those who have no Helm: made by `make chart`, not by hand. README.md says which two
# values have to be replaced.
"""


def run(*command, **options):
    """Runs a command and returns it as it ended, with what it wrote."""
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)


def helm(verb, *arguments, chart=CHART, release="flocker-csi"):
    """Calls helm for a chart, not for a cluster."""
    name = [release] if verb == "template" else []
    return run(TOOLS / "helm", verb, *name, chart, "--namespace=flocker-csi", f"--kube-version={KUBERNETES}", *arguments)


def values(name):
    """Returns the arguments for a set of values, by its name."""
    return ["--values", ROOT / f"tests/chart/values/{name}.yaml"]


def render(*arguments, chart=CHART):
    """Returns the text of a render that has to succeed."""
    done = helm("template", *arguments, chart=chart)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def documents(text):
    """Returns the objects of a manifest."""
    return [document for document in yaml.safe_load_all(text) if document]


@functools.cache
def rendered(name):
    """Returns the text of a set of values, by its name."""
    return render(*values(name))


def objects(name, kind):
    """Returns the objects of a kind in the render of a set of values."""
    return [document for document in documents(rendered(name)) if document["kind"] == kind]


def containers(name):
    """Returns each pod template of a render with each of its containers."""
    for kind in ("Deployment", "DaemonSet"):
        for workload in objects(name, kind):
            template = workload["spec"]["template"]["spec"]
            for container in template["containers"]:
                yield template, container


def readme():
    """Returns what README.md has to be."""
    made = run(
        TOOLS / "helm-docs",
        f"--chart-search-root={CHART}",
        "--sort-values-order=file",
        "--log-level=warning",
        "--dry-run",
    )
    if made.returncode or not made.stdout:
        raise AssertionError(made.stderr or "helm-docs wrote nothing")
    return made.stdout.rstrip("\n") + "\n"


def kept():
    """Returns every file that is made from the chart, with what has to be in it."""
    # Helm reads files of a chart only.
    yield CHART / "files/rules.yaml", (ROOT / "deploy/monitoring/rules.yaml").read_text()
    yield CHART / "README.md", readme()
    for name in NAMES:
        if name == "defaults":
            yield DEPLOY / "flocker-csi.yaml", DEPLOY_HEADER + rendered(name)
        else:
            yield ROOT / f"tests/chart/golden/{name}.yaml", rendered(name)


if __name__ == "__main__":
    for path, text in kept():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print("chart: wrote", path.relative_to(ROOT), file=sys.stderr)
