#!/usr/bin/env python3
"""The clients and benchmarks of databases, and OpenSSL's two programs, unmodified, with and without us (tests/support/strangers.py).
pgbench and redis-benchmark have threads, which are fibers under us; what they leave in the database must be what they said.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import checks
import strangers
from checks import Skip, expect, expect_equal, needs, run
from client_servers import Nginx, PostgreSQL, Redis, Server
from strangers import add_stranger, compare, scratch, shell, under, ways, why_not

rows = b"".join(b"%d\tvalue %d\n" % (i, i * i) for i in range(100_000))
nobody = checks.free_port()  # where nobody listens

# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def postgresql(program, *words):
    def command():
        needs(program)
        return [program, "-h", "127.0.0.1", "-p", str(PostgreSQL.get().port), "-U", "postgres", *words]

    return command


def psql(*words):
    return postgresql("psql", "-XqAt", *words)


def in_database(text):
    got = run([*psql("-c", text)(), "postgres"])
    expect_equal(got.status, 0, f"psql -c {text!r} ({got.err!r})")
    return got.out


def fresh_table():
    in_database("drop table if exists t; create table t (n int, x text)")


def full_table():
    fresh_table()
    in_database("insert into t select i, 'value ' || i::bigint * i from generate_series(0, 99999) i")


compare("psql: a query", psql("-c", "select 6 * 7", "postgres"), out=b"42\n")
compare("psql: a script on stdin", psql("postgres"), input=b"\\set a 1\nselect :a;\nbegin;\nselect 'in it';\nrollback;\n\\echo done\n", out=b"1\nin it\ndone\n")
compare("psql: copies a hundred thousand rows in, and they are there",
        psql("-c", "copy t from stdin", "-c", "select count(*), sum(n), max(length(x)) from t", "postgres"), clean=fresh_table, input=rows,
        out=b"100000|4999950000|16\n")
compare("psql: copies a hundred thousand rows out", psql("-c", "copy (select * from t order by n) to stdout", "postgres"), clean=full_table, out=rows)
compare("psql: a wrong query is 1", psql("-c", "select nonsense", "postgres"), wanted=1)
compare("psql: a statement's time is out", psql("-c", "set statement_timeout = 200", "-c", "select pg_sleep(20)", "postgres"), wanted=1)
compare("psql: a notice comes to who listens",
        lambda: shell(" ".join(psql("-c", "'listen c'", "-c", "\"notify c, 'word'\"", "postgres")()) + " | sed 's/PID .*//'"))
compare("psql: no such database is 2", psql("-c", "select 1", "none"), wanted=2)
compare("psql: a refused connection is 2", ["psql", "-X", "-h", "127.0.0.1", "-p", str(nobody), "-U", "postgres"], wanted=2)
compare("pg_dump: a table with its rows", lambda: shell(" ".join(postgresql("pg_dump", "-t", "t", "postgres")()) + " | grep -v '^.\\(un\\)\\?restrict\\|^--' | sha256sum"),
        clean=full_table)


def fresh_accounts():
    got = run(postgresql("pgbench", "-i", "-q", "postgres")())
    expect_equal(got.status, 0, f"pgbench -i ({got.err!r})")


# What its transactions have added up to is the same in all four tables, and there is a line of history for each.
books = ("select (select count(*) from pgbench_history), (select sum(delta) from pgbench_history) = (select sum(abalance) from pgbench_accounts), "
         "(select sum(tbalance) from pgbench_tellers) = (select sum(bbalance) from pgbench_branches), "
         "(select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches)")


def pgbench(*words):
    def command():
        bench = postgresql("pgbench", "-n", *words, "postgres")()
        query = [*psql("-c", books)(), "postgres"]
        return shell(" ".join(bench) + " | grep -E '^(number of|transaction type|query mode)' && " + " ".join(query[:-3]) + f" -c \"{books}\" postgres")

    return command


compare("pgbench: twenty clients in four threads", pgbench("-c", "20", "-j", "4", "-t", "50"), clean=fresh_accounts)
compare("pgbench: a connection for each transaction", pgbench("-C", "-c", "8", "-j", "4", "-t", "10"), clean=fresh_accounts)
compare("pgbench: prepared statements, at a rate", pgbench("-M", "prepared", "-c", "10", "-j", "2", "-t", "20", "-R", "400"), clean=fresh_accounts)

# --- Redis ------------------------------------------------------------------------------------------------------------


def redis_benchmark(*words):
    """What it counts up in the server is what it was to do: nothing is lost, nothing done twice."""

    def command():
        needs("redis-benchmark", "redis-cli")
        port = Redis.get().port
        return shell(f"redis-benchmark -p {port} -q -t incr {' '.join(words)} > {scratch}/redis-benchmark && redis-cli -p {port} get counter:__rand_int__")

    return command


def flush():
    expect_equal(run(["redis-cli", "-p", str(Redis.get().port), "flushall"]).out, b"OK\n", "flushall")


for told, words in {"fifty clients": ("-c", "50", "-n", "20000"), "fifty clients in four threads": ("--threads", "4", "-c", "50", "-n", "20000"),
                    "two hundred clients, sixteen requests at a time": ("-c", "200", "-n", "40000", "-P", "16")}.items():
    compare(f"redis-benchmark: {told}", redis_benchmark(*words), clean=flush, out=words[words.index("-n") + 1].encode() + b"\n")

# --- OpenSSL ----------------------------------------------------------------------------------------------------------


def s_client(*words):
    def command():
        nginx = Nginx.get()
        return ["openssl", "s_client", "-connect", f"localhost:{nginx.tls_port}", "-CAfile", nginx.certificate, "-verify_return_error", *words]

    return command


class Reverser(Server):
    """`openssl s_server`, which sends each line back, its end first; a line CLOSE ends the connection."""

    def prepare(self):
        self.certificate = Nginx.get().certificate

    def commands(self):
        return [["openssl", "s_server", "-quiet", "-accept", f"127.0.0.1:{self.port}", "-cert", self.certificate, "-key", self.certificate + ".key", "-rev"]]


asks = b"GET /wait?s=0.2&id=7 HTTP/1.0\r\nHost: localhost\r\n\r\n"
compare("openssl s_client: asks a web server that takes its time", lambda: shell(" ".join(s_client("-quiet")()) + " | grep -v ^Date"), input=asks)
for version in ("tls1_2", "tls1_3"):
    compare(f"openssl s_client: a thousand lines there and back by {version}",
            lambda v=version: ["openssl", "s_client", "-quiet", "-connect", f"localhost:{Reverser.get().port}", "-CAfile", Nginx.get().certificate,
                               "-verify_return_error", "-" + v],
            input=b"".join(b"line %d\n" % i for i in range(1000)) + b"CLOSE\n",
            out=b"".join((b"line %d" % i)[::-1] + b"\n" for i in range(1000)))
compare("openssl s_client: a certificate that is not known is 1", lambda: [w if w != Nginx.get().certificate else "/dev/null" for w in s_client()()], wanted=1)
compare("openssl s_client: a refused connection is 1", ["openssl", "s_client", "-connect", f"127.0.0.1:{nobody}"], wanted=1)


def s_server(way):
    """Serves files, three megabytes and a few bytes, to curl."""
    needs("openssl", "curl")
    if why_not(way):
        raise Skip(why_not(way))
    folder = os.path.join(scratch, f"s_server-{way}")
    os.mkdir(folder)
    pages = {"big": rows, "small": b"a line\n"}
    for name, text in pages.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(text)
    port, certificate = checks.free_port(), Nginx.get().certificate
    command = ["openssl", "s_server", "-quiet", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", certificate + ".key", "-WWW"]
    process = checks.serve([*under(way), *command], ready=lambda: checks.port_answers(port), cwd=folder)
    for name in ("big", "small", "big"):
        got = run(["curl", "-sS", "--cacert", certificate, f"https://localhost:{port}/{name}"])
        expect_equal(got.status, 0, f"curl ({got.err!r})")
        expect(got.out == pages[name], f"{name}: {len(got.out)} bytes, or others than those of the file")
    process.terminate()
    expect_equal(process.wait(10), -15, "its end by SIGTERM")


for way in ways:
    add_stranger(f"openssl s_server: serves files to curl ({way})", lambda way=way: s_server(way))

checks.main()
