#!/usr/bin/env python3
"""Plots of a file of figures (report.py), as SVG: throughput, CPU time and memory against the number of connections.

    bench/plots.py FIGURES.json FOLDER
"""

import os
import re
import sys

from report import Figures, is_ours, is_raw

# Of the picture, and of its margins.
width, height, left, right, top, bottom = 760, 400, 70, 250, 40, 50
colours = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
           "#444444"]

Lines = dict[str, list[tuple[float, float]]]


def text(x: float, y: float, what: str, anchor: str = "middle", extra: str = "") -> str:
    what = what.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" {extra}>{what}</text>'


def nice_steps(most: float) -> list[float]:
    step = 10.0 ** len(str(int(most))) / 100
    while most / step > 8:
        step *= 2 if str(step)[0] != "2" else 2.5
    return [step * i for i in range(int(most / step) + 1)]


def plot(title: str, y_title: str, lines: Lines) -> str:
    """Connections go to the right, evenly for each count that was measured; values go up from 0."""
    counts = sorted({x for points in lines.values() for x, _ in points})
    most = max(y for points in lines.values() for _, y in points) * 1.05

    def across(x: float) -> float:
        return left + (width - left - right) * (counts.index(x) / max(len(counts) - 1, 1))

    def up(y: float) -> float:
        return height - bottom - (height - top - bottom) * y / most

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
           'font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>', text(left, 22, title, "start", 'font-size="15"'),
           text((left + width - right) / 2, height - 12, "connections")]
    middle = (height - bottom + top) / 2
    out.append(text(18, middle, y_title, extra=f'transform="rotate(-90 18 {middle:.0f})"'))
    for y in nice_steps(most):
        out.append(f'<line x1="{left}" x2="{width - right}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>')
        out.append(text(left - 6, up(y) + 4, f"{y:,.0f}", "end"))
    for x in counts:
        out.append(text(across(x), height - bottom + 18, f"{x:,.0f}"))
    by_end = sorted(lines, key=lambda name: -lines[name][-1][1])
    for place, name in enumerate(by_end):
        colour = colours[list(lines).index(name) % len(colours)]
        style = f'stroke-width="{3 if is_ours(name) else 1.5}"' + (' stroke-dasharray="6 3"' if is_raw(name) else "")
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in sorted(lines[name]))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" {style}/>')
        y = top + 14 + 20 * place
        out.append(f'<path d="M{width - right + 14} {y - 4}h24" stroke="{colour}" {style}/>')
        out.append(text(width - right + 44, y, name, "start"))
    return "\n".join([*out, "</svg>", ""])


def over_connections(figures: Figures, title: str, value) -> Lines:
    """The lines of all tables whose title matches; its first group is the number of connections."""
    lines: Lines = {}
    for table, rows in figures.tables.items():
        if found := re.fullmatch(title, table):
            count = int(found.group(1).replace(",", ""))
            for name, figure in rows.items():
                number = value(name, figure, count)
                if number is not None:
                    lines.setdefault(name.removesuffix(", resident"), []).append((count, number))
    return lines


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    figures, folder = Figures(sys.argv[1]), sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    plots = {}
    for file, transport in (("tcp", "TCP"), ("unix", "unix sockets")):
        title = rf"echo, {transport}, 64 B, ([\d,]+) connections?: ns of the server's CPU a request"
        plots[f"throughput-{file}"] = (f"Echo of 64 B over {transport}, server on one core", "requests/s",
                                       over_connections(figures, title, lambda n, f, c: 1e9 / f["wall"]))
        plots[f"cpu-{file}"] = (f"Echo of 64 B over {transport}: the server's CPU time", "ns a request",
                                over_connections(figures, title, lambda n, f, c: f["median"] if c > 1 else None))
    plots["memory"] = ("Idle connections: resident memory of the server", "MB", over_connections(
        figures, r"memory of an idle connection, TCP, ([\d,]+) connections",
        lambda n, f, c: f["median"] * c / 1e6 if n.endswith(", resident") else None))
    for file, (title, y_title, lines) in plots.items():
        if not lines:
            print(f"{file}: no figures")
            continue
        path = os.path.join(folder, file + ".svg")
        with open(path, "w", encoding="utf-8") as out:
            out.write(plot(title, y_title, lines))
        print(path)


if __name__ == "__main__":
    main()
