#!/usr/bin/env python3
"""Runs every benchmark of a build, counts instructions, and says what it came to.

    bench/report.py BUILD [--json FILE] [--compare OLD.json] [--quick] [NAME]
    bench/report.py --read FILE [--compare OLD.json]      measures nothing: shows what a file holds

The file: one JSON object a line. The first says machine, date, commit and load; the others are figures, as harness.cpp
writes them. After the benchmarks' own tables come: one table of ours, the raw limit and the peers; the goals of
goals.json with what was measured; and, with --compare, which ratios (or counts) have become worse than before by more
than both spreads.
"""

import argparse
import datetime
import fnmatch
import glob
import json
import os
import platform
import shutil
import subprocess
import sys

import instructions

here = os.path.dirname(os.path.abspath(__file__))

# what | program | table | row, and the row whose count is the frame around it, if there is one
bare_read = "libc's write, libc's read"
counted = [
    ("switch of contexts", "bench_context", "switch of contexts", "with errno and exception state", ""),
    ("switch of greenlets", "bench_switch", "switch by hand", "greenlet switch_to()", ""),
    ("yield", "bench_switch", "yield among 2 fibers", "yield() among 2", ""),
    ("spawn and join", "bench_spawn", "begin, run and end", "spawn and join", ""),
    ("hooked read that is ready, above libc's", "bench_hook", "write a byte", "hooked read that is ready", bare_read),
    ("hooked read that must wait, above libc's", "bench_hook", "write a byte", "hooked read that must wait", bare_read),
]


def output_of(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=here)
    return done.stdout.strip() if done.returncode == 0 else ""


def machine() -> dict:
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "") if hasattr(platform, "freedesktop_os_release") else ""
    return {"machine": model, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(), "system": system,
            "date": datetime.datetime.now().strftime("%Y-%m-%d %H:%M"), "load": os.getloadavg()[0],
            "commit": output_of("git", "describe", "--always", "--dirty")}


def measure(build: str, file: str, name: str, quick: bool) -> list[str]:
    """Returns what has failed: one that ends badly takes none of the others' figures with it."""
    with open(file, "w", encoding="utf-8") as out:
        out.write(json.dumps(machine()) + "\n")
    programs = [p for p in sorted(glob.glob(os.path.join(build, "bench", "bench_*"))) if os.path.isfile(p) and name in p]
    if not programs:
        sys.exit(f"report: no benchmark with '{name}' in its name in {build}/bench")
    failed = []
    for program in programs:
        print(f"\n== {os.path.basename(program)}", flush=True)
        done = subprocess.run([program, "--json", file, *(["--quick"] if quick else [])])
        if done.returncode != 0:
            failed.append(f"{program} ended with status {done.returncode}")
            print(f"  {failed[-1]}", flush=True)
    count_instructions(build, file, name)
    return failed


def count_instructions(build: str, file: str, name: str) -> None:
    print("\ninstructions, counted by callgrind; a system call is one; on epoll")
    if not shutil.which("valgrind"):
        print("  not counted: valgrind is not installed")
        return
    for what, program, table, row, frame in counted:
        if name not in program:
            continue
        try:
            count = instructions.each(build, program, row, 5000, table)
            count -= instructions.each(build, program, frame, 5000, table) if frame else 0
        except (instructions.Uncounted, subprocess.TimeoutExpired) as why:
            print(f"  {what:44} not counted: {str(why).splitlines()[0]}")
            continue
        print(f"  {what:44} {count:8.1f}", flush=True)
        figure = {"program": program, "table": "instructions", "name": what, "unit": "instructions", "median": round(count, 1)}
        with open(file, "a", encoding="utf-8") as out:
            out.write(json.dumps(figure) + "\n")


class Figures:
    """A file of figures: table -> name -> figure, in the order measured."""

    def __init__(self, file: str):
        with open(file, encoding="utf-8") as lines:
            records = [json.loads(line) for line in lines if line.strip()]
        self.head = next((r for r in records if "machine" in r), {})
        self.tables: dict[str, dict[str, dict]] = {}
        for r in records:
            if "table" in r:
                self.tables.setdefault(r["table"], {})[r["name"]] = r


def is_ours(name: str) -> bool:
    return name.startswith("ringlet")


def is_raw(name: str) -> bool:
    return name.startswith("raw")


def short(number: float) -> str:
    return f"{number:.1f}" if number < 100 else f"{number:,.0f}"


def print_summary(figures: Figures) -> None:
    """Of every table that has peers: the raw limit, ours as a multiple of it, and each peer as a multiple of ours."""
    rows = []
    for title, table in figures.tables.items():
        found = next(iter(table.values()))
        if found["program"] != "bench_peers" or not any(is_ours(n) for n in table) or "latency" in title or "memory" in title:
            continue
        ours_name = next(n for n in table if is_ours(n))
        ours, raw = table[ours_name]["median"], next((f["median"] for n, f in table.items() if is_raw(n)), 0)
        peers = sorted((f["median"] / ours, n) for n, f in table.items() if not is_ours(n) and not is_raw(n))
        rows.append((title.split(": ns")[0], short(raw) if raw else "", short(ours), f"{ours / raw:.2f}" if raw else "",
                     ", ".join(f"{n} {ratio:.2f}" for ratio, n in peers)))
    if not rows:
        return
    print("\nOurs, the limit and the peers: ns of CPU; peers as multiples of ours (below 1: cheaper than we)\n")
    print(f"  {'':56} {'raw':>9} {'ringlet':>9} {'/ raw':>6}  peers / ringlet")
    for title, raw, ours, ratio, peers in rows:
        print(f"  {title:56} {raw:>9} {ours:>9} {ratio:>6}  {peers}")


def worst(goal: dict, figures: Figures):
    """The figure farthest from the goal, and where it was; None if nothing was measured."""
    found = []
    for title, table in figures.tables.items():
        if not any(fnmatch.fnmatchcase(title, pattern) for pattern in goal["tables"]):
            continue
        value = next((f for n, f in table.items() if fnmatch.fnmatchcase(n, goal["name"])), None)
        number = value and value.get(goal.get("take", "median"))
        if number is None:
            continue
        where = title.split(": ns")[0]
        if "minus" in goal:
            number -= next((f["median"] for n, f in table.items() if fnmatch.fnmatchcase(n, goal["minus"])), 0)
        if "over" in goal:
            others = [(f["median"], n) for n, f in table.items() if n in goal["over"]]
            if not others:
                continue
            least, who = min(others)
            number, where = number / least, f"{where}; {who}"
        found.append((number, where))
    return (min if "at_least" in goal else max)(found, default=None)


def print_goals(figures: Figures) -> None:
    with open(os.path.join(here, "goals.json"), encoding="utf-8") as file:
        goals = json.load(file)
    print("\nGoals (bench/goals.json); of several tables the worst counts\n")
    for goal in goals:
        got = None if "not_measured" in goal else worst(goal, figures)
        if got:
            met = goal.get("at_least", 0) <= got[0] <= goal.get("at_most", float("inf"))
            verdict, note = "met" if met else "NOT MET", f"{got[0]:.4g}  ({got[1]})"
        else:
            verdict, note = "-", "not measured: " + goal.get("not_measured", "not in this run")
        print(f"  {verdict:8} {goal['figure']}: {goal['goal']}: {note}")


def range_of(figure: dict):
    """A ratio's, or a count's, quartiles and middle; None for what depends on the day."""
    if "ratio_low" in figure:
        return figure["ratio_low"], figure["ratio"], figure["ratio_high"]
    if figure["unit"] in ("instructions", "bytes"):
        return figure["median"], figure["median"], figure["median"]
    return None


def print_comparison(old: Figures, new: Figures) -> int:
    """What has become dearer by more than the two spreads and 3 %. Returns how many."""
    print(f"\nAgainst {old.head.get('commit', '?')} of {old.head.get('date', '?')} ({old.head.get('machine', '?')})")
    if old.head.get("machine") != new.head.get("machine"):
        print("  another machine: take the ratios as rough")
    worse = compared = 0
    for title, table in new.tables.items():
        for name, figure in table.items():
            before = old.tables.get(title, {}).get(name)
            a, b = before and range_of(before), range_of(figure)
            if not a or not b:
                continue
            compared += 1
            if b[0] > a[2] * 1.03 and b[1] > a[1] * 1.03:
                worse += 1
                print(f"  worse: {title}: {name}: {a[1]:.3g} -> {b[1]:.3g}")
    print(f"  {worse} of {compared} ratios and counts have become worse by more than the spreads and 3 %")
    return worse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", nargs="?")
    parser.add_argument("name", nargs="?", default="", help="only programs with this in their name")
    parser.add_argument("--json", help="where the figures go (default: BUILD/bench.json)")
    parser.add_argument("--read", help="a file of figures to show instead of measuring")
    parser.add_argument("--compare", help="an earlier file of figures")
    parser.add_argument("--quick", action="store_true", help="only: does it run")
    asked = parser.parse_args()
    if not asked.build and not asked.read:
        parser.error("BUILD, or --read FILE")
    old = Figures(asked.compare) if asked.compare else None  # before minutes of measuring
    file = asked.read or asked.json or os.path.join(asked.build, "bench.json")
    failed = []
    if not asked.read:
        failed = measure(asked.build, file, asked.name, asked.quick)
    figures = Figures(file)
    print("\n" + ", ".join(f"{key} {value}" for key, value in figures.head.items()))
    print_summary(figures)
    print_goals(figures)
    worse = print_comparison(old, figures) if old else 0
    print("".join(f"\nFAILED: {what}" for what in failed))
    print(f"Figures: {file}")
    sys.exit(1 if worse or failed else 0)


if __name__ == "__main__":
    main()
