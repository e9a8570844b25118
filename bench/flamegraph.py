#!/usr/bin/env python3
"""A flame graph of the echo server, plain read and write under the hooks: where its CPU time goes, kernel and all.

    bench/flamegraph.py BUILD OUT.svg [CONNECTIONS] [SECONDS]

Runs bench_peers' row of that server under load and lets perf look 999 times a second (the clock, so a virtual machine
will do; root, for the kernel's names). A box is as wide as the share of samples with this function on the stack.
"""

import collections
import os
import re
import subprocess
import sys
import tempfile
import time
from xml.sax.saxutils import escape

width, row, least = 1200, 17, 0.002  # pixels; boxes below this share are left out


def samples(build: str, connections: int, seconds: int) -> collections.Counter:
    """Stacks from the outermost function to the innermost -> how often."""
    command = [os.path.join(build, "bench", "bench_peers"), "--table", f"echo, TCP, 64 B, {connections} connection",
               "--only", "ringlet, hooked read and write", "--operations", str(300_000 * (seconds + 1))]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)  # it connects; what perf sees of that would be little anyway
        with open(f"/proc/{driver.pid}/task/{driver.pid}/children", encoding="ascii") as children:
            server = children.read().split()[0]
        with tempfile.TemporaryDirectory() as folder:
            data = os.path.join(folder, "perf.data")
            subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "--call-graph", "dwarf,4096", "-o", data,
                            "-p", server, "--", "sleep", str(seconds)], check=True)
            script = ["perf", "script", "-i", data, "-F", "ip,sym"]
            text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    finally:
        driver.kill()
        driver.wait()
    found: collections.Counter = collections.Counter()
    for block in text.split("\n\n"):
        names = [line.split(None, 1)[1] for line in block.strip().splitlines() if len(line.split(None, 1)) == 2]
        if names:
            found[tuple(re.sub(r"\(.*\)$|<.*>", "", name) for name in reversed(names))] += 1
    return found


def boxes(stacks: collections.Counter, depth: int, x: float, scale: float, out: list[str], deepest: list[int]) -> None:
    groups: dict[str, collections.Counter] = {}
    for stack, count in stacks.items():
        if len(stack) > depth:
            groups.setdefault(stack[depth], collections.Counter())[stack] += count
    for name in sorted(groups):
        count = sum(groups[name].values())
        wide = count * scale
        if wide >= least * width:
            deepest[0] = max(deepest[0], depth)
            hue = sum(map(ord, name)) % 40
            out.append(f'<g><title>{escape(name)}: {100 * wide / width:.1f} %</title><rect x="{x:.1f}" y="{depth * row}" '
                       f'width="{wide:.1f}" height="{row - 1}" fill="hsl({hue},80%,{70 - hue % 12}%)"/>'
                       f'<text x="{x + 3:.1f}" y="{depth * row + 12}">{escape(name[:int(wide / 6.5)])}</text></g>')
            boxes(groups[name], depth + 1, x, scale, out, deepest)
        x += wide


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    connections = int(sys.argv[3]) if len(sys.argv) > 3 else 128
    stacks = samples(sys.argv[1], connections, int(sys.argv[4]) if len(sys.argv) > 4 else 5)
    total = sum(stacks.values())
    if not total:
        sys.exit("perf saw nothing")
    out: list[str] = []
    deepest = [0]
    boxes(stacks, 0, 0, width / total, out, deepest)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{(deepest[0] + 1) * row}" '
                   'font-family="monospace" font-size="11">\n' + "\n".join(out) + "\n</svg>\n")
    print(f"{sys.argv[2]}: {total} samples")


if __name__ == "__main__":
    main()
