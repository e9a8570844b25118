#!/usr/bin/env python3
"""Includes run downward only: each folder may include what stands below it in the table, and nothing else of ours.

The table is DESIGN's list of floors. A floor that wants one more neighbour changes the table here, with the reason in
the commit; nothing else does.
"""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks

# folder -> the folders it may include besides itself and include/ringlet. Public headers have a row of their own.
floors = {
    "include/ringlet": ["include/ringlet/ipc"],
    "include/ringlet/ipc": ["include/ringlet"],
    "src/base": [],
    "src/context": ["src/base"],
    "src/greenlet": ["src/context", "src/base"],
    "src/loop": ["src/base"],
    "src/hub": ["src/greenlet", "src/loop", "src/context", "src/base"],
    "src/sync": ["src/hub", "src/base"],
    "src/task": ["src/hub", "src/sync", "src/base"],
    "src/io": ["src/hub", "src/loop", "src/sync", "src/base"],
    "src/stream": ["src/io", "src/hub", "src/loop", "src/sync", "src/base"],
    "src/net": ["src/stream", "src/task", "src/io", "src/hub", "src/loop", "src/sync", "src/base"],
    "src/process": ["include/ringlet/ipc", "src/net", "src/stream", "src/task", "src/io", "src/hub", "src/loop", "src/sync", "src/base"],
    # A library of its own: a user of the public face, but for its BIO's system calls, in which nobody else may get a turn.
    "src/tls": ["src/base"],
    "src/threads": ["src/io", "src/hub", "src/loop", "src/context", "src/sync", "src/base"],
    # The system-call door's mechanism knows nothing of what stands behind the door.
    "hooks/patch": ["src/base"],
    "hooks": ["hooks/patch", "src/io", "src/threads", "src/hub", "src/sync", "src/base"],
    # No hook is in it: it only tells what the loop and the stacks would do here.
    "hooks/launcher": ["hooks", "hooks/patch", "src/loop", "src/context", "src/base"],
}

# One file's need of one header that its floor does not stand on, and why the floor does not move for it.
exceptions = {
    ("src/task/thread_pool.cpp", "src/loop/crew.hpp"): "a program's work for helper threads; the hub would only hand it on",
    ("src/task/hub_threads.cpp", "src/loop/native_thread.hpp"): "threads of the runtime's own are made in one place",
}

# The lowest floors know nothing of what their neighbours speak: names that must not occur there at all.
forbidden_headers = {
    "src/context": {"liburing.h", "sys/socket.h", "sys/epoll.h"},
    "src/greenlet": {"liburing.h", "sys/socket.h", "sys/epoll.h", "chrono"},
    "src/hub": {"liburing.h", "sys/socket.h", "sys/epoll.h"},
    "src/sync": {"liburing.h", "sys/socket.h", "sys/epoll.h"},
    "hooks": {"liburing.h", "boost/context/detail/fcontext.hpp"},
}

include_line = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def floor_of(path):
    """The most specific row of the table that a file lies in, or None."""
    folder = os.path.dirname(path)
    while folder:
        if folder in floors:
            return folder
        folder = os.path.dirname(folder)
    return None


def files():
    for top in ("include", "src", "hooks"):
        for folder, _, names in os.walk(os.path.join(checks.source, top)):
            for name in sorted(names):
                if name.endswith((".hpp", ".h", ".cpp", ".c", ".def", ".S")):
                    yield os.path.relpath(os.path.join(folder, name), checks.source)


def ours(name, includer):
    """The included file as a path in the project, or None if it is the system's."""
    for base in (os.path.dirname(includer), "include", "src", "hooks"):
        candidate = os.path.normpath(os.path.join(base, name))
        if os.path.isfile(os.path.join(checks.source, candidate)):
            return candidate
    return None


def includes():
    for path in files():
        with open(os.path.join(checks.source, path), encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                if found := include_line.match(line):
                    yield path, number, found.group(1), found.group(2)


def wrong_includes(found=None):
    wrong = []
    for path, number, bracket, name in found or includes():
        floor = floor_of(path)
        if floor is None:
            wrong.append(f"{path}:{number}: its folder is on no floor of the table")
            continue
        target = ours(name, path)
        if target is None:
            if bracket == '"':
                wrong.append(f'{path}:{number}: "{name}" is no file of ours')
            elif name in forbidden_headers.get(floor, ()):
                wrong.append(f"{path}:{number}: {floor} may not know <{name}>")
            continue
        target_floor = floor_of(target)
        if (path, target) in exceptions:
            continue
        if target_floor not in (floor, "include/ringlet", *floors[floor]):
            wrong.append(f"{path}:{number}: {floor} may not include {target} ({target_floor} is no floor below it)")
    return wrong


@checks.check("includes: run downward only")
def _():
    wrong = wrong_includes()
    checks.expect(not wrong, "\n  " + "\n  ".join(wrong))


@checks.check("includes: an upward one would be noticed")
def _():
    made = [("src/base/lock.cpp", 1, '"', "loop/engine.hpp"), ("src/loop/engine.cpp", 1, '"', "hub/hub.hpp"),
            ("include/ringlet/io.hpp", 1, '"', "base/sys.hpp"), ("src/greenlet/greenlet.cpp", 1, "<", "liburing.h")]
    for one in made:
        checks.expect(wrong_includes([one]), f"{one[0]} including {one[3]} passed")


checks.main()
