#!/usr/bin/env python3
"""Servers that take their time, for tests/clients, each a process that can be ended as a real one is.

memcached PORT BEHIND   memcached has no slow command: passes everything on, a `get delay-MS-...` so much later
lock PORT FILE          has a sqlite database locked, in the middle of a change, while somebody is connected who said
                        `hold SECONDS`, at most so long
"""

import asyncio
import re
import sqlite3
import sys


async def memcached(reader, writer, behind):
    try:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", behind)
    except OSError:
        writer.close()
        return

    async def pass_on(source, sink, waits):
        while data := await source.read(65536):
            if waits and (found := re.match(rb"gets? delay-(\d+)-", data)):
                await asyncio.sleep(int(found[1]) / 1000)
            sink.write(data)
            await sink.drain()
        sink.close()

    await asyncio.gather(pass_on(reader, back_writer, True), pass_on(back_reader, writer, False), return_exceptions=True)


class Lock:
    """Held by the first who wants it until the last has gone or has had it long enough."""

    def __init__(self, file):
        self.database = sqlite3.connect(file, isolation_level=None)
        self.database.execute("pragma cache_size = 2")  # so that the change reaches the file
        self.holders = 0

    async def serve(self, reader, writer):
        seconds = float((await reader.readline()).split()[1])
        self.holders += 1
        if self.holders == 1:
            self.database.execute("begin exclusive")
            self.database.execute("update words set word = 'wrong'")
            self.database.execute("update filler set bytes = zeroblob(4000)")
        writer.write(b"!")
        try:
            await asyncio.wait_for(reader.read(), seconds)  # until the end of file
        except (asyncio.TimeoutError, OSError):
            pass
        self.holders -= 1
        if self.holders == 0:
            self.database.execute("rollback")
        writer.close()


async def main(kind, port, what):
    if kind == "memcached":
        serve = lambda reader, writer: memcached(reader, writer, int(what))
    else:
        serve = Lock(what).serve
    async with await asyncio.start_server(serve, "127.0.0.1", int(port), backlog=1000) as server:
        await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
