"""Runs inside of the base's namespaces; run.sh makes them and takes away what is left."""

import argparse
import sys
import traceback

from . import images
from .cluster import Cluster
from .layout import Layout
from .report import Report
from .chapters import CHAPTERS
from .waiting import Failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--binaries", required=True)
    parser.add_argument("--helm", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--cgroup", required=True)
    parser.add_argument("--only", default="", help="chapters to run, by name; all unless given")
    options = parser.parse_args()
    known = {chapter.__name__.rpartition(".")[2] for chapter in CHAPTERS}
    if unknown := set(options.only.split()) - known:
        parser.error(f"there is no chapter {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    report = Report()
    layout = Layout(options.work, options.binaries, options.helm, options.program, options.image)
    images.make_all(layout)
    cluster = Cluster(layout, options.cgroup)
    try:
        cluster.start(report)
        chosen = options.only.split()
        for chapter in CHAPTERS:
            name = chapter.__name__.rpartition(".")[2]
            if chosen and name not in chosen and not chapter.ALWAYS:
                continue
            report.chapter(chapter.TITLE)
            try:
                chapter.run_chapter(cluster, report)
            except Failed as failed:
                report.not_shown(f"{name}: {chapter.TITLE}", failed)
                cluster.keep_pod_logs(name)
                if chapter.ALWAYS:
                    break
    except Failed as failed:
        report.not_shown("the cluster", failed)
    except Exception:  # A bug in the tests is a failure too, and is reported with its position.
        report.not_shown("the chapters", traceback.format_exc())
    finally:
        cluster.stop()
    return report.close()


sys.exit(main())
