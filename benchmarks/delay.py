"""A line to a server that is as long as one wants: a relay that delays both ways.

What is not real about it: connect() is answered at once. The round trip that it would
have taken is put on the first bytes that the client sends, if they come that early: so
whoever does something else meanwhile gains what he would have gained.
"""

import asyncio
import threading
from typing import Self


class Delay:
    """Listens on a free port of the loopback interface, as a context manager.

    Each byte takes half of `round_trip` (seconds), either way, to or from the server
    that listens at `port`.
    """

    def __init__(self, port: int, round_trip: float) -> None:
        self._target = port
        self._half = round_trip / 2
        self._loop = asyncio.new_event_loop()
        self._is_there = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._is_there.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connect, "127.0.0.1", 0)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._is_there.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _connect(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # Until then nothing that the client says could have been on its way.
        connected = self._loop.time() + 2 * self._half
        far = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(
            self._pass(reader, far[1], connected),
            self._pass(far[0], writer, 0.0),
        )

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: float
    ) -> None:
        """Pass on what is read, in its order, none of it before `first`."""
        data = b"?"
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            due = max(first, self._loop.time()) + self._half
            self._loop.call_at(due, _write, writer, data)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(data)
    else:
        writer.close()
