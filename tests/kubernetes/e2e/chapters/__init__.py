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
    node_loss,
    upgrade,
    moving_over,
    pace,
    ending,
]
