#!/usr/bin/env python3
"""Instructions per operation of a benchmark's row, counted exactly: most machines of ours have no performance counters.

    bench/instructions.py BUILD PROGRAM ROW [OPERATIONS]
    bench/instructions.py build-release bench_switch "greenlet switch_to()"

Runs the row under callgrind twice, with N and with 2N operations, and divides the difference: what it costs to begin
and to end falls out. System calls count as one instruction. Valgrind knows no io_uring, so the engine is epoll.
"""

import os
import re
import subprocess
import sys


class Uncounted(Exception):
    pass


def collected(build: str, program: str, row: str, operations: int, table: str) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", os.path.join(build, "bench", program),
               "--only", row, "--table", table, "--operations", str(operations)]
    environment = dict(os.environ, RINGLET_ENGINE="epoll")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        raise Uncounted(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")
    return int(found.group(1))


def each(build: str, program: str, row: str, operations: int = 20000, table: str = "") -> float:
    once, twice = (collected(build, program, row, times * operations, table) for times in (1, 2))
    return (twice - once) / operations


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    try:
        count = each(*sys.argv[1:4], *map(int, sys.argv[4:5]))
    except Uncounted as why:
        sys.exit(str(why))
    print(f"{sys.argv[3]}: {count:.1f} instructions")
