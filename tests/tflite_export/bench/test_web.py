import http.client
import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from tests.tflite_export.bench.chromium import Page
from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export import ExportError
from tflite_export.bench import web
from tflite_export.bench.cache import cache_folder
from tflite_export.bench.harness import benchmark
from tflite_export.bench.web_server import WebServer, missing_packages


def ask(server: WebServer, path: str, *, host: str | None = None, body: bytes | None = None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    headers = {} if host is None else {"Host": host}
    connection.request("GET" if body is None else "POST", path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


@pytest.fixture
def modules(tmp_path):
    """A folder that looks like an installation."""
    for name in ("@litertjs/core", "@litertjs/wasm-utils", "@tensorflow/tfjs-tflite"):
        folder = tmp_path / "node_modules" / name
        folder.mkdir(parents=True)
        (folder / "package.json").write_text("{}")
    (tmp_path / "node_modules" / "other").mkdir()
    (tmp_path / "node_modules" / "other" / "package.json").write_text("{}")
    (tmp_path / "secret.json").write_text("{}")
    return tmp_path


class TestServer:
    def test_the_page_comes_isolated_and_loads_nothing_from_elsewhere(self, modules):
        with WebServer(modules) as server:
            answer, content = ask(server, "/")
            assert answer.status == 200 and b"Drop .tflite files" in content
            assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            for name in ("app.mjs", "engines.mjs", "measure.mjs", "style.css", "meanings.json", "icon.svg"):
                assert ask(server, f"/{name}")[0].status == 200
        for path in (Path(web.PAGE).glob("*")):
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http://" not in text and "https://" not in text, path

    @pytest.mark.parametrize(
        "path",
        ["/../web.py", "/%2e%2e/web.py", "/..%2fweb.py", "/modules/other/package.json", "/modules/@litertjs/../other",
         "/modules/@litertjs/core/../../../secret.json", "/modules/%2e%2e/secret.json", "/job/unknown", "/nothing"],
    )  # fmt: skip
    def test_nothing_else_is_served(self, modules, path):
        with WebServer(modules) as server:
            assert ask(server, path)[0].status == 404
            assert ask(server, "/modules/@litertjs/core/package.json")[0].status == 200

    def test_other_names_that_lead_here_are_strangers(self, modules):
        with WebServer(modules) as server:
            assert ask(server, "/", host="evil.example:80")[0].status == 403
            assert ask(server, "/", host=f"localhost:{server.port}")[0].status == 200

    def test_it_listens_on_this_machine_alone(self, modules):
        with WebServer(modules) as server:
            assert server._server.socket.getsockname()[0] == "127.0.0.1"
            with pytest.raises(OSError):
                WebServer(modules, port=server.port)
        with socket.socket() as free:  # closed: the port is free again
            free.bind(("127.0.0.1", server.port))

    def test_a_job_goes_out_and_its_answer_comes_back(self, modules):
        lines: list[str] = []
        with WebServer(modules) as server:
            asked = server.post({"runs": 3}, [b"abc"], lines.append)
            key = asked.address.rpartition("=")[2]
            assert json.loads(ask(server, f"/job/{key}")[1]) == {"runs": 3}
            assert ask(server, f"/job/{key}/0")[1] == b"abc" and ask(server, f"/job/{key}/1")[0].status == 404
            assert asked.answer(0.0) is None
            ask(server, f"/progress/{key}", body=b"halfway")
            assert ask(server, f"/answer/{key}", body=b"not json")[0].status == 400
            assert ask(server, "/answer/guessed", body=b"{}")[0].status == 403
            ask(server, f"/answer/{key}", body=b'{"a": 1}')
            assert asked.answer(5.0) == {"a": 1} and lines == ["halfway"]


def test_the_page_is_served_until_it_is_interrupted(modules, tmp_path):
    def started(address: str) -> None:
        connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=10)
        connection.request("GET", "/")
        seen.append(connection.getresponse().status)
        connection.close()
        raise KeyboardInterrupt

    seen: list[int] = []
    web.demo(modules, started=started)
    assert seen == [200]
    with pytest.raises(ExportError, match=f"npm install --prefix {tmp_path / 'nowhere'} "):
        web.demo(tmp_path / "nowhere")


def test_missing_packages_are_one_command(tmp_path, modules):
    (lack,) = missing_packages(tmp_path / "nowhere")
    assert lack.command.startswith(f"npm install --prefix {tmp_path / 'nowhere'} ")
    assert lack.command.endswith("@litertjs/core@2.5.3 @tensorflow/tfjs-tflite@0.0.1-alpha.10")
    assert missing_packages(modules) == []
    assert benchmark(dense(), "web", modules=str(tmp_path / "nowhere")).status == "unavailable"


def test_what_is_missing_depends_on_the_accelerator(monkeypatch, modules):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert [lack.what for lack in web.missing({"modules": modules})] == ["Node.js"]
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/node" if name == "node" else None)
    assert web.missing({"modules": modules}) == []
    result = benchmark(dense(), "web", accelerator="chromium", modules=modules)
    assert result.status == "unavailable" and "sudo apt-get install chromium" in result.reason


def test_the_cache_goes_where_it_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.delenv("TFLITE_EXPORT_CACHE", raising=False)
    assert cache_folder("web") == tmp_path / "x" / "tflite_export" / "web"
    monkeypatch.setenv("TFLITE_EXPORT_CACHE", str(tmp_path / "own"))
    assert cache_folder("web") == tmp_path / "own" / "web"


def test_the_runtime_of_the_browser_is_checked(modules):
    with pytest.raises(ValueError, match=r"`runtime` must be 'litert.js' or 'tfjs-tflite'. Received: runtime='flash'"):
        benchmark(dense(), "web", accelerator="chromium", runtime="flash", modules=modules)


@pytest.fixture
def installed(monkeypatch):
    """The two runtimes, as tests/packages.sh installs them."""
    monkeypatch.setattr(web, "_WARM", 20)
    lacks = web.missing({})
    if lacks:
        pytest.skip(str(lacks[0]))


def unknown() -> bytes:
    return file_of([tensor((1, 2), name="x"), tensor((1, 2), name="y")], [op("no-such", (0,), (1,))], (0,), (1,))


@pytest.mark.usefixtures("installed")
@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js: sudo apt-get install nodejs npm")
class TestNode:
    @pytest.mark.parametrize("accelerator", ["litert.js", "tfjs-tflite"])
    def test_a_float_file_runs_and_agrees(self, accelerator):
        result = benchmark(dense(), "web", accelerator=accelerator, runs=20)
        assert result.status == "ok" and result.runs == 20 and result.threads == 1
        assert 0 < result.min <= result.median <= result.p99 and result.init > 0
        assert result.agreement.equal > 0.9 and result.agreement.largest < 1e-5
        assert "Node" in result.device and result.version

    def test_integers_are_refused_by_one_with_the_way_out_and_run_by_the_other(self):
        refused, taken = (benchmark(integer_dense(), "web", accelerator=a, runs=5) for a in web.ACCELERATORS[:2])
        assert refused.status == "failed" and "export it with inputs='float32'" in refused.reason
        assert taken.status == "ok" and taken.agreement.unit == "steps" and taken.agreement.largest <= 1

    def test_a_preparation_that_fails_silently_is_a_failure(self):
        # LiteRT.js throws nothing for this file: it writes to the console, and "runs".
        result = benchmark(unknown(), "web", runs=5)
        assert result.status == "failed" and result.median is None
        assert result.reason.startswith("the runtime has no operation no-such")

    def test_several_are_timed_by_turns_and_one_does_not_spoil_the_others(self):
        found = benchmark({"bad": unknown(), "good": dense(), "same": dense()}, "web", runs=10)
        assert [result.status for result in found] == ["failed", "ok", "ok"]
        assert [result.ratio for result in found] == [None] * 3  # the first, which they are compared to, does not run
        first, second = benchmark({"a": dense(), "b": dense()}, "web", accelerator="tfjs-tflite", runs=10)
        assert first.status == second.status == "ok" and first.ratio == 1.0 and second.ratio > 0

    def test_operations_are_timed_where_the_runtime_can(self):
        with_rows = benchmark(dense(), "web", accelerator="tfjs-tflite", runs=5, profile=True)
        without = benchmark(dense(), "web", runs=5, profile=True)
        assert with_rows.operations and all(row.count >= 0 and row.unit == "ms" for row in with_rows.operations)
        assert not without.operations and any("gives no times of single operations" in w for w in without.warnings)

    def test_too_long_is_said(self):
        result = benchmark(dense(), "web", runs=5, timeout=0.05)
        assert result.status == "failed" and result.reason == "it was not done after 0.05 s"

    def test_samples_of_the_user_go_in(self):
        result = benchmark(dense(), "web", runs=5, samples=np.float32([[1, 2], [3, 4]]))
        assert result.status == "ok" and result.agreement.values == 6


@pytest.mark.usefixtures("installed")
@pytest.mark.skipif(web._browser({}) is None, reason="needs Chromium: sudo apt-get install chromium")
class TestChromium:
    @pytest.mark.parametrize("runtime", ["litert.js", "tfjs-tflite"])
    def test_the_page_measures_like_node(self, runtime):
        result = benchmark(dense(), "web", accelerator="chromium", runtime=runtime, runs=10)
        assert result.status == "ok" and result.runs == 10 and "Chromium" in result.device
        assert result.agreement.largest < 1e-5

    def test_a_dropped_file_is_drawn(self, tmp_path):
        drop = """async (name, bytes, runtime) => {
          document.querySelector(`input[value="${runtime}"]`).click();
          document.querySelector('input[value="10"]').click();
          const given = new DataTransfer();
          given.items.add(new File([new Uint8Array(bytes)], name));
          document.dispatchEvent(new DragEvent('drop', {dataTransfer: given}));
          const status = document.getElementById('status');
          while (!/ran$/.test(status.textContent)) await new Promise((f) => setTimeout(f, 50));
          return document.getElementById('results').innerText;
        }"""
        with WebServer(web.modules_folder({})) as server, Page(tmp_path) as page:
            page.open(server.address, width=390)
            page.evaluate("(async () => { while (!globalThis.ready) await new Promise((f) => setTimeout(f, 20)); })()")
            assert page.evaluate("crossOriginIsolated")
            # A name is text, not markup.
            name = json.dumps("<img src=x onerror=alert(1)>.tflite")
            text = page.evaluate(f"({drop})({name}, {list(dense())}, 'tfjs-tflite')")
            assert "<img src=x onerror=alert(1)>.tflite" in text and "median" in text and "in x float32[1, 2]" in text
            text = page.evaluate(f"({drop})('integers.tflite', {list(integer_dense())}, 'litert.js')")
            assert "LiteRT.js takes and gives float32" in text
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert all(url.startswith((server.address, "blob:", "data:")) for url in page.requests), page.requests

    def test_a_browser_that_dies_is_a_reason(self, tmp_path):
        false = tmp_path / "chromium"
        false.write_text("#!/bin/sh\necho no display >&2\nexit 1\n")
        false.chmod(0o755)
        result = benchmark(dense(), "web", accelerator="chromium", browser=str(false))
        assert result.status == "failed" and result.reason.endswith("its last words: no display")
