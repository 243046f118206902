import re
import shutil

import numpy as np
import pytest

from tests.tflite_export.handmade import dense, integer_dense
from tflite_export import ExportError
from tflite_export.bench import arm64, arm64_root
from tflite_export.bench.harness import benchmark


def test_the_processor_is_shown_to_each_core():
    text = arm64_root.cpuinfo("cortex-a53", cores=2)
    assert re.findall(r"^processor\t: (\d)$", text, re.MULTILINE) == ["0", "1"]
    # The A53 is an ARMv8.0: dot products would end its process. Part numbers as Arm's manuals give them.
    assert "CPU part\t: 0xd03" in text and "asimddp" not in text
    assert "CPU part\t: 0xd0b" in arm64_root.cpuinfo("cortex-a76") and "asimddp" in arm64_root.cpuinfo("cortex-a76")


def test_what_is_missing_comes_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    emulator, root = arm64.missing({"root": str(tmp_path)})
    assert emulator.command == "sudo apt-get install qemu-user-static"
    assert root.command == f"python -m tflite_export.bench.arm64_root {tmp_path}"


def test_debians_python_is_found():
    assert arm64_root._python("Package: python3\nVersion: 3.13.5-1\nArchitecture: arm64\n") == "python3.13"
    with pytest.raises(ExportError, match="Debian"):
        arm64_root._python("N: Unable to locate package python3\n")


def test_a_root_needs_debians_tools(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ExportError, match="apt-get is missing: the root is prepared on a Debian system"):
        arm64_root.prepare(tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_failed_tool_is_said_in_its_words(tmp_path):
    with pytest.raises(ExportError, match=r"^sh failed: no room \| at all$"):
        arm64_root._called(["sh", "-c", "echo no room >&2; echo at all >&2; exit 3"])


def test_options_are_checked(monkeypatch, tmp_path):
    monkeypatch.setattr(arm64, "missing", lambda options: [])
    with pytest.raises(ValueError, match="kernels='fast'"):
        benchmark(dense(), "arm64", kernels="fast", root=str(tmp_path))


class TestEmulated:
    @pytest.fixture(autouse=True)
    def prepared(self):
        """The root that `python -m tflite_export.bench.arm64_root` prepares."""
        if lacks := arm64.missing({}):
            pytest.skip(str(lacks[0]))

    def test_arm_kernels_compute_what_this_machines_do(self):
        samples = np.float32([[0.0, 1.0], [-3.0, 20.0]])
        result = benchmark(integer_dense(), "arm64", samples=samples)
        assert result.status == "ok" and result.device.startswith("Cortex-A76, emulated by QEMU")
        assert result.delegate == "XNNPACK (1 of 1 operations)" and result.counts["equal_to_this_machine"] == 1.0
        assert result.agreement.values == 4 and result.agreement.unit == "steps" and result.agreement.largest <= 1
        # An emulator's times are no times.
        assert (result.init, result.first, result.median, result.throughput, result.runs) == (None,) * 4 + (0,)
