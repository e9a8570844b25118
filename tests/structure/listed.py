#!/usr/bin/env python3
"""Every test file is in a list that compiles or runs it: a test that nobody runs proves nothing."""

import glob
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks


@checks.check("listed: tests/meson.build names every test file")
def _():
    folder = os.path.join(checks.source, "tests")
    with open(os.path.join(folder, "meson.build"), encoding="utf-8") as f:
        text = f.read()
    files = [os.path.relpath(p, folder) for pattern in ("*/*_test.cpp", "threads/battery/*.cpp")
             for p in glob.glob(os.path.join(folder, pattern))]
    checks.expect(len(files) > 10, f"found only {files}")
    missing = [name for name in files if f"'{name}'" not in text]
    checks.expect(not missing, f"in no list: {', '.join(sorted(missing))}")


checks.main()
