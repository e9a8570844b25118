"""What the peers written in Python have in common: how they are told what to do, and what the workloads are (peer.hpp)."""

import sys

LISTENER, CROWD, ARMED = 3, 1000, 10_000


def share(n: int, count: int) -> int:
    return (n + count - 1) // count


def run(serve, workloads) -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "echo" and serve:
        serve(int(sys.argv[2]))
        return
    while line := sys.stdin.readline():
        name, n = line.split()
        print(f"done {workloads[name](int(n))}" if name in workloads else "none", flush=True)
