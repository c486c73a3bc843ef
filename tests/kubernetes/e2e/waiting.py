"""Waiting for a condition, with a deadline and without guessing how long things take."""

import time

LOOK_EVERY = 0.2


class Failed(Exception):
    """What was to be shown was not."""


class Ended(Failed):
    """The condition can never hold, because a process that it needs has ended."""


def eventually(what, look, within=60.0, seen=lambda: ""):
    """Calls `look` until it returns something true, and returns that.

    A `Failed` that it raises counts as "not yet", and the last one is reported at the deadline. `seen` adds details for the reader.
    """
    deadline = time.monotonic() + within
    while True:
        last = None
        try:
            found = look()
            if found:
                return found
        except Ended:
            raise
        except Failed as failed:
            last = str(failed)
        if time.monotonic() > deadline:
            details = "; ".join(str(part) for part in (last, seen()) if part)
            raise Failed(f"not within {within:.0f} s: {what}" + (f" ({details})" if details else ""))
        time.sleep(LOOK_EVERY)


def throughout(what, look, seconds):
    """Fails unless `look` returns something true each time during these seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check(look(), what)
        time.sleep(LOOK_EVERY)


def check(condition, what):
    """Fails unless the condition holds."""
    if not condition:
        raise Failed(what)


def equal(seen, expected, what):
    """Fails unless two values are equal, and shows both."""
    if seen != expected:
        raise Failed(f"{what}: expected {expected!r}, saw {seen!r}")
