"""A small web server for this machine's own browser: the page of the WebAssembly runtimes, and jobs for it.

The page is served with the two headers that make a browser hand out exact clocks and shared memory:

    Cross-Origin-Opener-Policy: same-origin        Cross-Origin-Embedder-Policy: require-corp

    GET /                    the page; GET /modules/...: the two runtimes out of `node_modules`
    GET /job/KEY             a request as JSON; GET /job/KEY/3: the bytes of its fourth file
    POST /answer/KEY         the answer as JSON; POST /progress/KEY: a line of text
"""

import json
import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tflite_export.bench.job import Missing

PAGE = Path(__file__).resolve().parent / "browser"
# The packages whose files the page loads, and the versions that its tests use.
PACKAGES = {"@litertjs/core": "2.5.3", "@litertjs/wasm-utils": "", "@tensorflow/tfjs-tflite": "0.0.1-alpha.10"}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
}
# Emscripten makes functions out of text, which needs 'unsafe-eval'; nothing is loaded from anywhere else.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self' blob: data:; worker-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_LARGEST_ANSWER = 1 << 30


def missing_packages(modules: Path) -> list[Missing]:
    """The runtimes that `modules`/node_modules lacks, as one command.

    Args:
        modules: the folder that holds `node_modules`.
    """
    absent = [name for name in PACKAGES if not (modules / "node_modules" / name / "package.json").is_file()]
    if not absent:
        return []
    wanted = " ".join(f"{name}@{version}" for name, version in PACKAGES.items() if version)
    command = f"npm install --prefix {modules} --ignore-scripts --no-audit --no-fund {wanted}"
    return [Missing(f"{' and '.join(absent)} in {modules / 'node_modules'}", command)]


class WebServer:
    """Serves the page on 127.0.0.1 from a thread, until it is closed.

    >>> with WebServer(Path("folder/of/node_modules")) as server:            # doctest: +SKIP
    ...     webbrowser.open(server.address)
    """

    def __init__(self, modules: Path, *, port: int = 0) -> None:
        """Starts to serve.

        Args:
            modules: the folder that holds `node_modules`.
            port: to listen on; any free one for 0.

        Raises:
            OSError: the port is taken.
        """
        self._jobs: dict[str, _Asked] = {}
        handler = type("Handler", (_Handler,), {"jobs": self._jobs, "modules": modules / "node_modules"})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.address = f"http://127.0.0.1:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def post(self, request: dict[str, Any], contents: Sequence[bytes], progress: Callable[[str], None]) -> "_Asked":
        """Puts a job up; the browser does it that opens the returned job's `path`.

        Args:
            request: what the page is to do, without the files' bytes.
            contents: of the files.
            progress: called with the lines that the page reports.
        """
        key = secrets.token_urlsafe(16)
        self._jobs[key] = asked = _Asked(f"{self.address}#job={key}", request, tuple(contents), progress)
        return asked

    def wait(self) -> None:
        """Serves until interrupted."""
        while self._thread.is_alive():
            self._thread.join(0.5)

    def close(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> "WebServer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Asked:
    """A job and, once the page has sent it, its answer."""

    def __init__(
        self, address: str, request: dict[str, Any], contents: tuple[bytes, ...], progress: Callable[[str], None]
    ) -> None:
        self.address, self.request, self.contents, self.progress = address, request, contents, progress
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()

    def answered(self, answer: dict[str, Any]) -> None:
        """Hands the answer over."""
        self._answers.put(answer)

    def answer(self, timeout: float) -> dict[str, Any] | None:
        """The answer; None when it has not come after `timeout` seconds."""
        try:
            return self._answers.get(timeout=timeout)
        except queue.Empty:
            return None


class _Handler(BaseHTTPRequestHandler):
    jobs: dict[str, _Asked]
    modules: Path
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Page, runtimes and jobs."""
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        if not self._is_local():
            return self._send(HTTPStatus.FORBIDDEN, b"this server answers to its own machine")
        if parts[:1] == ["job"] and len(parts) in (2, 3):
            return self._job(parts[1:])
        if parts[:1] == ["modules"] and "/".join(parts[1:3]) in PACKAGES:
            return self._file(self.modules, parts[1:])
        return self._file(PAGE, parts or ["index.html"])

    def do_POST(self) -> None:
        """Answers and progress of a job."""
        parts = [part for part in urlsplit(self.path).path.split("/") if part]
        length = int(self.headers.get("Content-Length") or 0)
        if not self._is_local() or len(parts) != 2 or parts[1] not in self.jobs or not 0 < length <= _LARGEST_ANSWER:
            self.close_connection = True
            return self._send(HTTPStatus.FORBIDDEN, b"there is no such job")
        body, asked = self.rfile.read(length), self.jobs[parts[1]]
        if parts[0] == "progress":
            asked.progress(body.decode("utf-8", "replace")[:200])
        elif parts[0] == "answer":
            try:
                asked.answered(json.loads(body))
            except ValueError:
                return self._send(HTTPStatus.BAD_REQUEST, b"not JSON")
        return self._send(HTTPStatus.OK, b"")

    def _is_local(self) -> bool:
        """Whether the page was asked for by this address: another name that leads here is a stranger's."""
        return (self.headers.get("Host") or "").rpartition(":")[0] in ("127.0.0.1", "localhost")

    def _job(self, parts: list[str]) -> None:
        asked = self.jobs.get(parts[0])
        if asked is None:
            return self._send(HTTPStatus.NOT_FOUND, b"there is no such job")
        if len(parts) == 1:
            return self._send(HTTPStatus.OK, json.dumps(asked.request).encode(), "application/json")
        if not parts[1].isdecimal() or int(parts[1]) >= len(asked.contents):
            return self._send(HTTPStatus.NOT_FOUND, b"there is no such file")
        return self._send(HTTPStatus.OK, asked.contents[int(parts[1])], "application/octet-stream")

    def _file(self, root: Path, parts: list[str]) -> None:
        path = root.joinpath(*parts)
        # Packages may be links into a store; what must not happen is that the request itself leads outside.
        if ".." in parts or any("/" in part or "\\" in part for part in parts) or not path.is_file():
            return self._send(HTTPStatus.NOT_FOUND, b"there is no such file")
        kind = _TYPES.get(path.suffix)
        if kind is None:
            return self._send(HTTPStatus.NOT_FOUND, b"files of this kind are not served")
        return self._send(HTTPStatus.OK, path.read_bytes(), kind)

    def _send(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Embedder-Policy", "require-corp"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Content-Security-Policy", _POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not written to the terminal."""
