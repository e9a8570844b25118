#!/usr/bin/env python3
"""Writes the page of the last run: ours against the limit and the peers, the goals, and every table that was measured.

    bench/page.py FIGURES PAGE      `bench/page.py build-release/bench.json docs/benchmarks-last.md`

All of it comes from the file of figures that report.py has written; what the figures mean is in docs/benchmarks.md.
"""

import contextlib
import io
import os
import sys

import report


def printed(print_it, figures: report.Figures) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        print_it(figures)
    title, _, lines = said.getvalue().strip("\n").partition("\n")
    return f"## {title}\n\n```\n{lines.strip(chr(10))}\n```\n" if lines else ""


def cells(figure: dict) -> list[str]:
    ratio = f"{figure['ratio']:.2f}" if "ratio" in figure else ""
    spread = f"{figure['ratio_low']:.2f} to {figure['ratio_high']:.2f}" if "ratio_low" in figure else ""
    wall = report.short(figure["wall"]) if "wall" in figure else ""
    return [figure["name"], f"{report.short(figure['median'])} {figure['unit']}", ratio, spread, wall]


def table(title: str, rows: list[dict]) -> str:
    heads = ["", "median", "ratio", "quartiles", "wall clock, ns"]
    filled = [cells(row) for row in rows]
    kept = [i for i in range(len(heads)) if i < 2 or any(row[i] for row in filled)]
    lines = [[heads[i] for i in kept], ["---"] * len(kept), *([row[i].replace("|", "\\|") for i in kept] for row in filled)]
    return f"**{title}**\n\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines)


def page(figures: report.Figures) -> str:
    head = figures.head
    parts = ["# The last run of ./dev bench\n",
             "Written by bench/page.py; how it is measured, and what is known of the gaps: [benchmarks.md](benchmarks.md).\n",
             f"{head.get('date', '?')}, commit {head.get('commit', '?')}: {head.get('machine', '?')}, {head.get('cores', '?')} cores, "
             f"{head.get('system', '?')}, kernel {head.get('kernel', '?')}; load at the beginning {head.get('load', 0):.1f}.\n",
             printed(report.print_summary, figures), printed(report.print_goals, figures), "## Every table\n"]
    program = ""
    for title, rows in figures.tables.items():
        measured = list(rows.values())
        name = os.path.basename(measured[0]["program"])
        if name != program and title != "instructions":
            parts.append(f"### {name}\n")
            program = name
        parts.append(table(title, measured))
    return "\n".join(parts)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        out.write(page(report.Figures(sys.argv[1])))


if __name__ == "__main__":
    main()
