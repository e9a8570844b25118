#!/usr/bin/env python3
"""Public headers stand alone: each compiles as the only line of a file, without a warning, in each compiler that is
here, and includes only its neighbours, the standard library and the system's C headers."""

import functools
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks

public = os.path.join(checks.source, "include", "ringlet")
headers = sorted(os.path.relpath(os.path.join(folder, name), public)
                 for folder, _, names in os.walk(public) for name in names if name.endswith(".hpp"))
# Headers that only programs with a certain library include, and so may include it themselves.
of_libraries = {"ipc/message.hpp": "msgpack.hpp"}


strict = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-fsyntax-only",
          "-I", os.path.join(checks.source, "include")]


def uses_library(text):
    """The library that a file wants because it includes a header of ours that wants it, or None."""
    for name in re.findall(r"#\s*include <ringlet/([^>]+)>", text):
        if name in of_libraries:
            return of_libraries[name]
        if found := uses_library(open(os.path.join(public, name), encoding="utf-8").read()):
            return found
    return None


# The compilers are what takes time here: as many run at once as there are processors.
processors = ThreadPoolExecutor(os.cpu_count())


@functools.cache
def begin(compiler, header):
    # Twice: what is included twice must not be defined twice.
    return processors.submit(subprocess.run, [compiler, *strict, "-x", "c++", "-"], input=f"#include <ringlet/{header}>\n" * 2,
                             capture_output=True, text=True)


def compile_alone(compiler, header):
    if library := uses_library(f"#include <ringlet/{header}>"):
        if not os.path.exists(os.path.join("/usr/include", library)):
            raise checks.Skip(f"<{library}> is not installed")
    got = begin(compiler, header).result()
    checks.expect(got.returncode == 0, got.stderr[:1500])


def check_compilers():
    for compiler in ("g++", "clang++"):
        for header in headers:
            def one(compiler=compiler, header=header):
                checks.needs(compiler)
                compile_alone(compiler, header)

            checks.add_check(f"headers: {header} compiles alone by {compiler}", one)
            if not shutil.which(compiler):
                break  # one line says that it is not here


@checks.check("headers: include only each other, the standard library and the system")
def _():
    wrong = []
    for header in headers:
        with open(os.path.join(public, header), encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                found = re.match(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
                if not found:
                    continue
                name = found.group(2)
                is_neighbour = name.startswith("ringlet/") and name[8:] in headers or name == of_libraries.get(header)
                is_standard = re.fullmatch(r"[a-z_]+", name) is not None
                is_system = re.fullmatch(r"(sys|netinet|arpa|net)/\w+\.h|\w+\.h", name) and not name.startswith(("liburing", "doctest"))
                if found.group(1) == '"' or not (is_neighbour or is_standard or is_system):
                    wrong.append(f"{header}:{number}: {line.strip()}")
    checks.expect(not wrong, "\n  " + "\n  ".join(wrong))


def compile_examples(compiler):
    """What the headers make of a user's code: the examples that want nothing but ringlet use about all of it."""
    examples = os.path.join(checks.source, "examples")
    names = [name for name in sorted(os.listdir(examples)) if name.endswith(".cpp") and "<curl/" not in open(os.path.join(examples, name)).read()]
    checks.expect(len(names) > 15, f"only {len(names)} examples were found")

    def wants_nothing_else(name):  # what the build leaves out, too
        library = uses_library(open(os.path.join(examples, name), encoding="utf-8").read())
        return not library or os.path.exists(os.path.join("/usr/include", library))

    begun = [processors.submit(subprocess.run, [compiler, *strict, os.path.join(examples, name)], capture_output=True, text=True)
             for name in filter(wants_nothing_else, names)]
    said = [each.result().stderr[:1000] for each in begun if each.result().returncode != 0]
    checks.expect(not said, "\n".join(said))


check_compilers()
for compiler in ("g++", "clang++"):
    def user_code(compiler=compiler):
        checks.needs(compiler)
        compile_examples(compiler)

    checks.add_check(f"headers: users' code (the examples) compiles without a warning by {compiler}", user_code)
if len(sys.argv) < 2 or not sys.argv[1]:  # who asks for all gets them together
    for compiler in filter(shutil.which, ("g++", "clang++")):
        for header in headers:
            begin(compiler, header)
checks.CHECK_SECONDS = 280  # many compilations, on a machine that may have other work
checks.main()
