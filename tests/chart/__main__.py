"""Runs the tests of the chart, and closes with how many passed."""

import pathlib
import sys
import unittest

HERE = str(pathlib.Path(__file__).parent)
tests = unittest.defaultTestLoader.discover(HERE)
result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(tests)
failed = {getattr(test, "test_case", test).id() for test, _ in result.failures + result.errors}
print(f"{result.testsRun - len(failed)} passed, {len(failed)} failed")
sys.exit(not result.testsRun or bool(failed))
