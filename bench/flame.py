#!/usr/bin/env python3
"""A flame graph of the echo server, as SVG: where its time goes, from the fiber's first call down into the kernel.

    ./dev bench --flame
    bench/flame.py BUILD OUT.svg [ROW] [TABLE]      a row and a table of bench_peers; its title must contain TABLE

perf takes the whole stack a thousand times a second of CPU time (the clock, not the processor's counters, which most
virtual machines lack) while bench_peers drives the server; only the server's samples count. The width of a box is the
share of samples in which that function was on the stack, callers below, and the order of neighbours means nothing. Needs
perf (Debian: linux-perf), and for the kernel's part the right to see it (root).
"""

import collections
import os
import re
import subprocess
import sys
import tempfile

width, box, margin, least_share = 1200, 16, 10, 0.002
server = "peer_ringlet"
defaults = "ringlet, hooked read and write", "echo, TCP, 64 B, 16 connections:"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"flame: {' '.join(command)} ended with status {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout


def short(name: str) -> str:
    """Without template arguments, parameters and the namespaces that all have."""
    name = re.sub(r"\{lambda.*", "lambda", name.replace("(anonymous namespace)::", ""))
    while (fewer := re.sub(r"<[^<>]*>", "", name)) != name:
        name = fewer
    return re.sub(r"\(.*\)|ringlet::|detail::|\[clone.*\]|\.(part|constprop|isra|cold)[.0-9]*", "", name).strip()


def group(where: str, caller: str) -> str:
    """Whose code, which gives the colour. What is inlined names no file: it is its caller's."""
    if where == "inlined":
        return caller
    return "ringlet" if "libringlet" in where else "kernel" if where.startswith("[") else "program"


def stacks(text: str) -> collections.Counter:
    """perf script's samples: stack, from the outermost call to the innermost -> how often."""
    found: collections.Counter = collections.Counter()
    innermost_first: list[tuple[str, str]] = []
    for line in [*text.splitlines(), ""]:
        if match := re.match(r"\s+[0-9a-f]+ (.+) \((.+)\)$", line):
            innermost_first.append((short(match.group(1)), match.group(2)))
        elif not line.strip() and innermost_first:
            stack: list[tuple[str, str]] = []
            for name, where in reversed(innermost_first):
                if name != "[unknown]":
                    stack.append((name, group(where, stack[-1][1] if stack else "program")))
            found[tuple(stack)] += 1
            innermost_first = []
    return found


colours = {"kernel": "#f4a261", "ringlet": "#2a9d8f", "program": "#a8c686"}


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def draw(found: collections.Counter, title: str) -> str:
    total = sum(found.values())
    boxes: list[tuple[int, float, float, str, str, int]] = []  # depth, from, to, name, whose, samples

    def place(rows: list[tuple[tuple, int]], depth: int, start: float) -> None:
        children: dict[tuple[str, str], list[tuple[tuple, int]]] = {}
        for stack, count in rows:
            if len(stack) > depth:
                children.setdefault(stack[depth], []).append((stack, count))
        for (name, whose), under in sorted(children.items(), key=lambda item: item[0][0]):
            count = sum(c for _, c in under)
            if count / total >= least_share:
                boxes.append((depth, start, start + count / total, name, whose, count))
                place(under, depth + 1, start)
            start += count / total

    place(list(found.items()), 0, 0.0)
    deepest = max(b[0] for b in boxes) + 1
    height = deepest * box + 60
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{margin}" y="20" font-size="15">{escaped(title)}</text>']
    for i, (whose, colour) in enumerate(colours.items()):
        out.append(f'<rect x="{width - 260 + 85 * i}" y="10" width="12" height="12" fill="{colour}"/>'
                   f'<text x="{width - 244 + 85 * i}" y="20">{whose}</text>')
    for depth, start, end, name, whose, count in boxes:
        x, wide = margin + start * (width - 2 * margin), (end - start) * (width - 2 * margin)
        y = height - margin - (depth + 1) * box
        room = int((wide - 4) / 6.2)
        shown = name if len(name) <= room else name[:room - 1] + "…" if room > 3 else ""
        out.append(f'<g><title>{escaped(name)}: {100 * count / total:.1f} %</title>'
                   f'<rect x="{x:.1f}" y="{y}" width="{max(wide - 0.5, 0.3):.1f}" height="{box - 1}" fill="{colours[whose]}"/>'
                   + (f'<text x="{x + 2:.1f}" y="{y + 11}">{escaped(shown)}</text>' if shown else "") + "</g>")
    return "\n".join([*out, "</svg>", ""])


def main() -> None:
    if len(sys.argv) not in (3, 4, 5):
        sys.exit(__doc__)
    build, file = sys.argv[1:3]
    row, table = [*sys.argv[3:], *defaults[len(sys.argv) - 3:]]
    with tempfile.TemporaryDirectory(prefix="ringlet-flame.") as folder:
        samples = os.path.join(folder, "perf.data")
        run("perf", "record", "-q", "-e", "cpu-clock", "-F", "1000", "--call-graph", "dwarf,8192", "-o", samples, "--",
            os.path.join(build, "bench", "bench_peers"), "--only", row, "--table", table, "--operations", "300000")
        found = stacks(run("perf", "script", "-i", samples, "--comm", server, "-F", "ip,sym,dso"))
    total = sum(found.values())
    if total < 100:
        sys.exit(f"flame: perf took {total} samples of {server}; is there a row '{row}' in a table '{table}'?")
    with open(file, "w", encoding="utf-8") as out:
        out.write(draw(found, f"{row}: {table.rstrip(':')}; {total} samples"))
    print(f"{file}: {total} samples")


if __name__ == "__main__":
    main()
