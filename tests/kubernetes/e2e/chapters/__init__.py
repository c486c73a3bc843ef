"""The chapters of the end-to-end test, in their order."""

from . import (
    access,
    ending,
    installing,
    many,
    missing_mounts,
    moving_over,
    node_loss,
    pace,
    restarts,
    runbook,
    upgrade,
    volumes,
)

CHAPTERS = [
    installing,
    missing_mounts,
    volumes,
    access,
    many,
    restarts,
    runbook,
    node_loss,
    upgrade,
    moving_over,
    pace,
    ending,
]
