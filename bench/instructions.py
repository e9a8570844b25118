#!/usr/bin/env python3
"""Instructions per operation of a benchmark's row, counted exactly: this machine has no performance counters.

    bench/instructions.py BUILD PROGRAM ROW [OPERATIONS]
    bench/instructions.py build-release bench_switch "greenlet switch_to()"

Runs the row under callgrind twice, with N and with 2N operations, and divides the difference: what it costs to begin
and to end falls out. System calls count as one instruction. Valgrind knows no io_uring, so the engine is epoll.
"""

import os
import re
import subprocess
import sys


def collected(build, program, row, operations, extra=()):
    command = ["valgrind", "--tool=callgrind", *(extra or ["--callgrind-out-file=/dev/null"]), os.path.join(build, "bench", program),
               "--only", row, "--operations", str(operations)]
    environment = dict(os.environ, RINGLET_ENGINE="epoll")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        sys.exit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return int(found.group(1))


if len(sys.argv) < 4:
    sys.exit(__doc__)
build, program, row = sys.argv[1:4]
operations = int(sys.argv[4]) if len(sys.argv) > 4 else 20000
each = (collected(build, program, row, 2 * operations) - collected(build, program, row, operations)) / operations
print(f"{row}: {each:.1f} instructions")
