"""Python's greenlet: switches by hand; it has no loop, so nothing else."""

import sys

try:
    import greenlet
except ImportError:
    sys.exit(77)

import peer

here = greenlet.getcurrent()


def answer():
    while True:
        here.switch()


other = greenlet.greenlet(answer)


def switch(n: int) -> int:
    for _ in range(n // 2):
        other.switch()
    return n // 2 * 2


def spawn(n: int) -> int:
    for _ in range(n):
        greenlet.greenlet(int).switch()
    return n


peer.run(None, {"switch": switch, "spawn": spawn})
