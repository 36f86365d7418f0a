"""Ways in which a server on the Internet can fail, as faults for a RecordingServer."""

from __future__ import annotations

import json
import socket
import struct

from ecoflow_push.simulator.server import Answer, Fault, Handler

PAGE = b"<!DOCTYPE html><html><body>Please log in to the network</body></html>"


def code(number: str, message: str = "") -> Fault:
    """Answer HTTP 200 with an error code of EcoFlow's (protocol/rest.md#codes)."""
    envelope = {
        "code": number,
        "message": message,
        "eagleEyeTraceId": "ea1a",
        "tid": "",
    }
    return body(json.dumps(envelope).encode())


def body(content: bytes, content_type: str = "application/json") -> Fault:
    """Answer HTTP 200 with exactly this."""
    return lambda handler: handler.send(
        Answer(200, content, (("Content-Type", content_type),))
    )


def status(number: int, content: bytes = b"", **headers: str) -> Fault:
    """Answer an HTTP status; `Retry_After="4"` is the header Retry-After."""
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return lambda handler: handler.send(Answer(number, content, pairs))


def page() -> Fault:
    """Answer 200 with a web page, as a captive portal does."""
    return body(PAGE, "text/html")


def redirect(location: str, number: int = 302) -> Fault:
    """Point to another address."""
    return status(number, Location=location)


def hang() -> Fault:
    """Accept the request and never answer."""

    def fault(handler: Handler) -> None:
        handler.close_connection = True
        handler.server.stopping.wait()

    return fault


def drip_headers(pause: float = 0.1) -> Fault:
    """Send the headers a byte at a time, without end."""
    return _drip(b"HTTP/1.1 200 OK\r\nX-Drip: ", pause)


def drip_body(pause: float = 0.1) -> Fault:
    """Send a body a byte at a time, without end."""
    return _drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n ", pause)


def continue_for_ever(pause: float = 0.1) -> Fault:
    """Answer `100 Continue`, and again."""
    return _drip(b"", pause, b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_body() -> Fault:
    """Send a body as fast as it goes, without end."""

    def fault(handler: Handler) -> None:
        handler.wfile.write(handler.head(200, None))
        while not handler.server.stopping.is_set():
            handler.wfile.write(b" " * 65536)

    return fault


def cut(sent: bytes = b'{"code":"0","data":{"pd.so', announced: int = 1000) -> Fault:
    """Announce a length, send less and hang up."""

    def fault(handler: Handler) -> None:
        handler.wfile.write(handler.head(200, announced) + sent)
        handler.close_connection = True

    return fault


def reset() -> Fault:
    """Reset the connection instead of answering."""

    def fault(handler: Handler) -> None:
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()
        handler.close_connection = True

    return fault


def raw(content: bytes) -> Fault:
    """Send these bytes as they are, and hang up."""

    def fault(handler: Handler) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return fault


def _drip(first: bytes, pause: float, drop: bytes = b"a") -> Fault:
    def fault(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(first)
        while not handler.server.stopping.wait(pause):
            handler.wfile.write(drop)

    return fault
