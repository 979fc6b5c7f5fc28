"""A web server for a folder, which supports range requests."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Server:
    """Behaviour of the server, and the requests it has received."""

    url: str = ""
    ranges: bool = True
    failures: int = 0  # number of next requests to answer with 503
    cut_short: int | None = None  # bytes after which the connection breaks
    drops: int = 0  # number of next requests at which to close the connection without an answer
    delay: float = 0  # seconds before each answer
    encoding: str | None = None  # content encoding to name
    sent: int = 0  # bytes of bodies
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path and range
    connections: int = 0
    in_flight: int = 0
    most_in_flight: int = 0


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve ``folder`` on a free port."""
    server = Server()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections stay open
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            with lock:
                server.connections += 1

        def do_GET(self) -> None:
            with lock:
                server.in_flight += 1
                server.most_in_flight = max(server.most_in_flight, server.in_flight)
                dropped = server.drops > 0
                server.drops -= dropped
            time.sleep(server.delay)
            with lock:
                server.in_flight -= 1
            if dropped:
                self.close_connection = True
            else:
                self.answer()

        def answer(self) -> None:
            wanted = self.headers.get("Range")
            server.requests.append((self.path, wanted))
            path = folder / self.path.lstrip("/")
            if server.failures:
                server.failures -= 1
                self.send_error(503)
                return
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            if wanted and server.ranges:
                first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()
                first, end = int(first), int(last or len(content) - 1) + 1
                if first >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(content)}")
                content = content[first:end]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            if server.encoding:
                self.send_header("Content-Encoding", server.encoding)
            self.end_headers()
            for begin in range(0, len(content), 1 << 16):
                with suppress(ConnectionError):
                    server.sent += self.wfile.write(content[: server.cut_short][begin : begin + (1 << 16)])
            self.close_connection |= server.cut_short is not None

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        server.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        httpd.shutdown()
        thread.join()
