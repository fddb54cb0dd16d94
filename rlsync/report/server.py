"""A small HTTP server on the loopback interface for a page that is open while runs go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from rlsync.errors import ConfigError, RlsyncError
from rlsync.report.live import LiveReport

_HOST = "127.0.0.1"
_HTML, _JSON, _TEXT = (f"{kind}; charset=utf-8" for kind in ("text/html", "application/json", "text/plain"))


@contextmanager
def serving(live: LiveReport, port: int) -> Iterator[str]:
    """Serve the page in the background, and yield its address.

    Raises:
        ConfigError: The port is in use, or may not be used.
    """
    try:
        server = ThreadingHTTPServer((_HOST, port), _handler(live))
    except OSError as error:
        raise ConfigError(f"--port={port} cannot be used ({error.strerror}). Leave it out, or give another") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{_HOST}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(live: LiveReport, target: str) -> tuple[HTTPStatus, str, str]:
    """Return status, type and text for the path of a request."""
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    answers: dict[str, Callable[[], tuple[str, str | None]]] = {
        "/": lambda: (_HTML, live.page()),
        "/news": lambda: (_JSON, live.news(query.get("seen", ""))),
        "/rows": lambda: (_JSON, live.rows(_number(query, "run"), _number(query, "begin"))),
        "/detail": lambda: (_JSON, live.detail(_number(query, "run"), _number(query, "row"))),
    }
    if url.path not in answers:
        return HTTPStatus.NOT_FOUND, _TEXT, "no such page"
    try:
        kind, text = answers[url.path]()
    except (ValueError, IndexError):
        return HTTPStatus.NOT_FOUND, _TEXT, "no such rollout"
    except (RlsyncError, OSError) as error:
        return HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, str(error)
    return (HTTPStatus.NO_CONTENT, kind, "") if text is None else (HTTPStatus.OK, kind, text)


def _number(query: dict[str, str], name: str) -> int:
    """Return a number that is not negative, as a place in a list."""
    value = int(query.get(name, ""))
    if value < 0:
        raise IndexError(value)
    return value


def _handler(live: LiveReport) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer a request, unless another name than this machine's led to the server."""
            host = self.headers.get("Host", "").partition(":")[0]
            if host in (_HOST, "localhost"):
                status, kind, text = answer(live, self.path)
            else:
                status, kind, text = HTTPStatus.FORBIDDEN, _TEXT, "only 127.0.0.1 and localhost are served"
            body = text.encode()
            self.send_response(status)
            headers = {"Content-Type": kind, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
            if status is not HTTPStatus.NO_CONTENT:
                headers["Content-Length"] = str(len(body))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    return Handler
