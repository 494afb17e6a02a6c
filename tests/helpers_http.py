"""A real HTTP server on loopback that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Told:
    """One POST that arrived, whatever was answered."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """``answers``: what the next requests get, then 200 for ever.

    A status; a status with headers; ``"never"`` (silence until the end); ``"cut"`` (the connection is closed
    without an answer).
    """

    url: str = ""
    answers: list[Any] = field(default_factory=list)
    came: list[Told] = field(default_factory=list)
    taken: list[Told] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(*answers: Any) -> Iterator[Server]:
    server = Server(answers=list(answers))
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}/hook/s3cret"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        http.shutdown()
        http.server_close()
        thread.join()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told = Told(self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"])))
            server.came.append(told)
            answer = server.answers.pop(0) if server.answers else 200
            if answer == "never":
                server.over.wait(30)
            elif answer != "cut":
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                if 200 <= status < 300:
                    server.taken.append(told)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
