"""A local web server that serves one file, with scripted faults."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Handles each request with the next behaviour of the script; the last one is repeated."""

    server: "Server"

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.server.starts.append(self.start)
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send_start(self, total: int | None = None) -> None:
        """The headers of a correct response: the file, or the rest of it."""
        total = len(self.server.content) if total is None else total
        if self.start >= total:
            self.head(416, Content_Range=f"bytes */{total}", Content_Length=0)
        elif self.start:
            span = f"bytes {self.start}-{total - 1}/{total}"
            self.head(206, Content_Range=span, Content_Length=total - self.start, Content_Type="application/zip")
        else:
            self.head(200, Content_Length=total, Content_Type="application/zip")

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """`script`: behaviours for the next requests; `starts`: the first byte of each request so far."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.script: list[Behaviour] = [complete]
        self.starts: list[int] = []
        self.closing = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/photos.zip"

    def stop(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Silent: some behaviours make the client disconnect."""


def complete(handler: Handler) -> None:
    handler.send_start()
    handler.wfile.write(handler.server.content[handler.start :])


def cut_after(count: int) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.send_start()
        handler.wfile.write(handler.server.content[handler.start : handler.start + count])

    return behave


def stall_after(count: int) -> Behaviour:
    def behave(handler: Handler) -> None:
        cut_after(count)(handler)
        handler.wfile.flush()
        handler.server.closing.wait(10)

    return behave


def hang_up(handler: Handler) -> None:
    """No response."""
    handler.close_connection = True


def respond(status: int) -> Behaviour:
    return lambda handler: handler.head(status, Content_Length=0)


def web_page(handler: Handler) -> None:
    page = b"<html>Please log in to the hotel's network</html>"
    handler.head(200, Content_Type="text/html; charset=utf-8", Content_Length=len(page))
    handler.wfile.write(page)


def wrong_bytes(handler: Handler) -> None:
    handler.send_start()
    handler.wfile.write(bytes(len(handler.server.content) - handler.start))


def wrong_length(handler: Handler) -> None:
    handler.send_start(len(handler.server.content) - 1000)
    handler.wfile.write(handler.server.content[handler.start : -1000])


def too_much(handler: Handler) -> None:
    handler.head(200, Content_Type="application/zip")
    handler.wfile.write(handler.server.content * 2)


def no_length(handler: Handler) -> None:
    handler.head(200, Content_Type="application/zip")
    handler.wfile.write(handler.server.content)


def no_ranges(handler: Handler) -> None:
    handler.start = 0
    complete(handler)


def another_range(handler: Handler) -> None:
    total = len(handler.server.content)
    handler.head(206, Content_Range=f"bytes 5-{total - 1}/{total}", Content_Length=total - 5)
    handler.wfile.write(handler.server.content[5:])


def unknown_length(handler: Handler) -> None:
    """A correct partial response without the total length."""
    total = len(handler.server.content)
    handler.head(206, Content_Range=f"bytes {handler.start}-{total - 1}/*", Content_Length=total - handler.start)
    handler.wfile.write(handler.server.content[handler.start :])


def wait_halfway(event: threading.Event) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.send_start()
        half = len(handler.server.content) // 2
        handler.wfile.write(handler.server.content[:half])
        handler.wfile.flush()
        event.wait(30)
        handler.wfile.write(handler.server.content[half:])

    return behave
