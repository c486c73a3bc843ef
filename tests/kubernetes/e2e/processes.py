"""Processes of the cluster, each with a log of its own."""

import os
import signal
import subprocess

from .waiting import Ended, Failed, eventually


class Process:
    """A program that runs in the background until it is stopped."""

    def __init__(self, name, arguments, log, environment=None):
        self.name = name
        self.log = log
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                [str(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self):
        return self._process.pid

    def running(self):
        return self._process.poll() is None

    def child(self):
        """The process that this one has started to be run in namespaces of its own."""

        def look():
            self.check_running()
            with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as children:
                return children.read().split()

        return int(eventually(f"{self.name} has started its child", look)[0])

    def check_running(self):
        """Fails with the end of the log when the process has ended."""
        if not self.running():
            raise Ended(f"{self.name} ended with {self._process.returncode}: {self.tail()}")

    def tail(self, lines=15):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-lines:]).strip()

    def stop(self, how=signal.SIGTERM, within=20.0):
        """Stops it; one that does not within its time is killed."""
        self._end(self.pid, how, within)

    def stop_child(self, how=signal.SIGTERM, within=20.0):
        """Stops the process that this one, which then ends, too, has started in namespaces of its own."""
        self._end(self.child() if self.running() else None, how, within)

    def _end(self, pid, how, within):
        if self.running():
            os.kill(pid, how)
            try:
                self._process.wait(within)
            except subprocess.TimeoutExpired:
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def run(arguments, *, text=None, within=120.0, expect=0, environment=None):
    """Runs a command to its end and returns what it printed; `expect=None` takes any exit status."""
    arguments = [str(argument) for argument in arguments]
    try:
        done = subprocess.run(
            arguments,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired as expired:
        raise Failed(f"{' '.join(arguments[:6])} did not end within {within:.0f} s") from expired
    if expect is not None and done.returncode != expect:
        raise Failed(
            f"{' '.join(arguments[:8])} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-1500:]}"
        )
    return done.stdout if expect is not None else done
