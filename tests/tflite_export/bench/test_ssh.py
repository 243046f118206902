"""Target "ssh": over the system's ssh client to a real server of this machine."""

import base64
import contextlib
import getpass
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from tflite_export.bench.harness import benchmark, target_module
from tflite_export.bench.inputs import feeds
from tflite_export.bench.ssh import remarks
from tflite_export.bench.ssh_board import Board, BoardError, RemoteProcess
from tflite_export.errors import ExportError

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="needs sshd: sudo apt-get install openssh-server"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(options of the target, folder, server process): keys, port, configuration and home are of this test's own."""
    folder = tmp_path_factory.mktemp("ssh")
    folder.chmod(0o700)
    home, temporary = folder / "home", folder / "tmp"
    home.mkdir()
    temporary.mkdir()
    for key in ("host", "user", "chatty", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True, timeout=30)
    chatty = 'command="echo Welcome to the board; eval \\"$SSH_ORIGINAL_COMMAND\\"" '
    (folder / "authorized").write_text((folder / "user.pub").read_text() + chatty + (folder / "chatty.pub").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin prohibit-password\nSetEnv HOME={home} TMPDIR={temporary}\n"
    )
    (folder / "config").write_text(f"UserKnownHostsFile {folder}/known\nGlobalKnownHostsFile /dev/null\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the server of the system would make it when it starts
    daemon = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    options = {
        "device": f"{getpass.getuser()}@127.0.0.1",
        "port": port,
        "identity": str(folder / "user"),
        "config": str(folder / "config"),
        "python": sys.executable,
        "timeout": 60,
    }
    yield options, folder, daemon
    daemon.terminate()
    daemon.wait(10)


@pytest.fixture
def options(server):
    return dict(server[0])


@pytest.fixture
def model(shared):
    return str(shared / "data" / "tflite" / "tflm_micro_speech_quantized.tflite")


def worker_in(folder):
    """The process whose folder is a run's in `folder`: the worker, and no other on this machine."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for entry in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                if str(entry.readlink()).startswith(f"{folder}/"):
                    return int(entry.parent.name)
        time.sleep(0.05)
    raise AssertionError("no worker runs there")


def nothing_left(folder):
    deadline = time.monotonic() + 10
    while list((folder / "tmp").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return list((folder / "tmp").iterdir()) == []


@needs_sshd
def test_files_are_measured_on_the_board_and_nothing_is_left_there(server, options, shared):
    data = shared / "data" / "tflite"
    files = {
        "float": str(data / "aeq_conv_fc_mnist.tflite"),
        "custom": str(data / "support_whitespace_tokenizer_custom_op.tflite"),
        "int8": str(data / "tflm_micro_speech_quantized.tflite"),
    }
    float32, custom, int8 = benchmark(files, "ssh", runs=20, threads=2, profile=True, **options)
    for result in (float32, int8):
        assert (result.status, result.reason, result.runs) == ("ok", "", 20)
        assert result.runtime == "LiteRT Interpreter" and result.threads == 2 and result.version[0] == "2"
        assert f"({os.cpu_count()} cores, {os.uname().machine})" in result.device
        assert result.delegate.startswith("XNNPACK (")
        assert 0 < result.min <= result.median <= result.p90 <= result.p99
        assert result.init > 0 and result.first > 0 and result.peak_memory > 0
        assert sum(one.count for one in result.operations) > 0
    assert float32.agreement.values == 80 and float32.agreement.largest < 1e-4
    assert int8.agreement.unit == "steps" and int8.agreement.largest <= 1
    assert float32.ratio == 1.0 and int8.ratio > 0
    assert custom.status == "failed" and "WhitespaceTokenizer" in custom.reason
    assert nothing_left(server[1])


@needs_sshd
def test_what_a_login_prints_is_not_taken_for_an_answer(server, options, model):
    chatty = {**options, "identity": str(server[1] / "chatty")}
    result = benchmark(model, "ssh", runs=3, accelerator="reference", **chatty)
    assert (result.status, result.reason) == ("ok", "")
    assert result.delegate == "none (reference kernels)" and result.agreement.equal == 1.0


@needs_sshd
def test_a_runtime_that_dies_is_named_and_its_folder_deleted(server, options):
    board = Board(options)
    with RemoteProcess(board, b"no model", timeout=60) as child:
        with pytest.raises(ExportError, match=r"not a TFLite file|whole TFLite"):
            child.call("open", {}, engine="interpreter", path="model.tflite", kernels="xnnpack", threads=1, times=1)
        assert len(list((server[1] / "tmp").iterdir())) == 1
        os.kill(worker_in(server[1] / "tmp"), signal.SIGABRT)
        with pytest.raises(ExportError, match=r"took its process down \(SIGABRT\)"):
            child.call("memory")
    assert nothing_left(server[1])


@needs_sshd
def test_a_runtime_that_hangs_is_ended_on_the_board_too(server, options, model):
    content = Path(model).read_bytes()
    with RemoteProcess(Board(options), content, timeout=60) as child:
        opened = {"engine": "interpreter", "path": "model.tflite", "kernels": "reference", "threads": 1, "times": 1}
        child.call("open", feeds(content, times=1).arrays, **opened)
        busy = worker_in(server[1] / "tmp")
        child._timeout = 0.5
        with pytest.raises(ExportError, match=r"did not answer within 0.5 s"):
            child.call("time", runs=10_000_000)
    assert nothing_left(server[1])
    assert not Path(f"/proc/{busy}").exists()


@needs_sshd
def test_without_litert_the_command_is_told(options, tmp_path, model):
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    result = benchmark(model, "ssh", **{**options, "python": str(bare)})
    assert result.status == "unavailable"
    assert "pass `setup=True` (a virtual environment), or ssh -p" in result.reason
    assert result.reason.endswith("-m pip install ai-edge-litert")


def wheel(folder):
    """An `ai-edge-litert` for pip that shows the way to this machine's own, so that nothing is downloaded."""
    paths = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    files = {
        "way.pth": "\n".join(paths) + "\n",
        "ai_edge_litert-2.9.9.dist-info/METADATA": "Metadata-Version: 2.1\nName: ai-edge-litert\nVersion: 2.9.9\n",
        "ai_edge_litert-2.9.9.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    path = folder / "ai_edge_litert-2.9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(text)}\n"
            archive.writestr(name, text)
        archive.writestr("ai_edge_litert-2.9.9.dist-info/RECORD", record + "ai_edge_litert-2.9.9.dist-info/RECORD,,\n")
    return path


@needs_sshd
@pytest.mark.slow
def test_setup_makes_an_environment_that_later_runs_find(server, options, tmp_path, model):
    wheel(tmp_path)
    packages = f"--no-index --find-links {tmp_path} ai-edge-litert"
    options.pop("python")
    result = benchmark(model, "ssh", runs=3, setup="true", packages=packages, **options)
    assert (result.status, result.reason) == ("ok", "")
    assert (server[1] / "home/.cache/tflite_export/venv/bin/python").exists()
    assert target_module("ssh").missing(options) == []
    with pytest.raises(
        BoardError, match=r"a virtual environment on .* \(pip: .*none-such.*`packages`"
    ):
        Board(options).set_up("--no-index none-such", timeout=120)


@needs_sshd
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"device": "nobody@no-such-host.invalid"}, "the host's name is not known"),
        ({"port": 1}, "no ssh server answers there"),
        ({"identity": "stranger"}, "copy your key there: ssh-copy-id"),
        ({"config": "/dev/null"}, "connect once by hand and accept it: ssh -p"),
        ({"python": "/nowhere/python"}, "'/nowhere/python' does not start"),
    ],
)
def test_each_failure_is_named_with_the_way_out(server, options, model, tmp_path, change, told):
    for name, value in change.items():
        options[name] = str(server[1] / value) if name == "identity" else value
    if change.get("config"):
        empty = tmp_path / "config"
        empty.write_text(f"UserKnownHostsFile {tmp_path}/none\nGlobalKnownHostsFile /dev/null\n")
        options["config"] = str(empty)
    result = benchmark(model, "ssh", **options)
    assert result.status == "unavailable" and told in result.reason


@needs_sshd
def test_a_connection_that_breaks_is_unavailable(server, options):
    with RemoteProcess(Board(options), b"no model", timeout=60) as child:
        with pytest.raises(ExportError, match="there is no 'memory'"):
            child.call("memory")
        daemon = server[2].pid
        for session in Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split():
            os.kill(int(session), signal.SIGKILL)
        with pytest.raises(BoardError, match=r"the connection broke.* check power and network of the board"):
            child.call("memory")
        # Which words ssh finds depends on what it was doing.
        for said in ("Connection to x closed by remote host.", "client_loop: send disconnect: Broken pipe"):
            assert "the connection broke" in str(Board(options).lost(said))
    assert nothing_left(server[1])


def test_without_ssh_or_a_board_the_way_is_told(monkeypatch):
    assert "pass `device`, such as user@raspberrypi.local" in str(target_module("ssh").missing({})[0])
    monkeypatch.setenv("PATH", "/nowhere")
    assert "sudo apt-get install openssh-client" in str(target_module("ssh").missing({"device": "a@b"})[0])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"device": "-oProxyCommand=touch x"}, "`device` must be a host"),
        ({"device": "a@b", "port": "x"}, "`port` must be an integer from 1 to 65535"),
        ({"device": "a@b", "identity": "/nowhere/key"}, "`identity` must be the path of a file"),
        ({"device": "a@b", "setup": "maybe"}, "`setup` must be true or false"),
        ({"device": "a@b", "timeout": -1}, "`timeout` must be a positive number"),
    ],
)
def test_wrong_options_are_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        target_module("ssh").missing(wrong)


def test_an_old_python_is_named():
    board = Board({"device": "a@b"})
    assert "Python 3.10 or later on a@b is missing" in str(board.lacking({"python": "3.9.2"}, setup=True))
    assert board.lacking({"python": "3.12.1"}, setup=True) is None
    assert board.lacking({"python": "3.10.0", "litert": "2.3.0"}, setup=False) is None


def test_clock_heat_and_power_of_a_board_are_told():
    notes = remarks({"governors": ["ondemand"], "celsius": 40.2}, {"celsius": 71.6, "throttled": "0x50005"})
    assert "governor ondemand" in notes[0]
    assert notes[1] == "board: 40 C, after: 72 C"
    assert notes[2].startswith("since it was started the board has had too little voltage, throttling:")
    assert remarks({"governors": ["performance"]}, {"throttled": "0x0"}) == []
