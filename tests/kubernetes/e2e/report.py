"""What the reader of a run sees."""

import sys
import time


class Report:
    """Chapters and their steps, as they happen, and the count at the end."""

    def __init__(self):
        self._began = time.monotonic()
        self.passed = 0
        self.failed = []
        self.measures = []

    def say(self, text):
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", flush=True)

    def chapter(self, title):
        self.say(f"== {title}")

    def shown(self, text):
        """Something that had to be shown was."""
        self.passed += 1
        self.say(f"   ok: {text}")

    def not_shown(self, text, why):
        self.failed.append(text)
        self.say(f"   FAILED: {text}: {why}")

    def measured(self, what, value):
        self.measures.append((what, value))
        self.say(f"   measured: {what}: {value}")

    def close(self):
        print()
        for what, value in self.measures:
            print(f"{what:<72} {value}")
        for text in self.failed:
            print(f"FAILED: {text}")
        print(f"kubernetes: {self.passed} passed, {len(self.failed)} failed")
        sys.stdout.flush()
        return 1 if self.failed or not self.passed else 0
