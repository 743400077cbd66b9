"""A server on this machine that answers what a test tells it to."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable
from typing import Any


class Server:
    """Paths -> what answers a request for them; counts the requests.

    Args of an answer: the `BaseHTTPRequestHandler` of the request, to write to.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Any], None]] = {}
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.release = threading.Event()  # ends the answers that hang
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.requests.append(self.path)
                owner.headers.append(dict(self.headers))
                owner.answers.get(self.path.partition("?")[0], status(404))(self)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        """Stop."""
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


def body(content: bytes, length: int | None = None, **headers: str) -> Callable[[Any], None]:
    """200 and the content; `length` lies about it."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Type": "application/octet-stream", **given}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content)

    return answer


def status(code: int, **headers: str) -> Callable[[Any], None]:
    """A status and nothing else."""

    def answer(handler: Any) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


def in_turn(*answers: Callable[[Any], None]) -> Callable[[Any], None]:
    """One answer after the other, the last one for good."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)
