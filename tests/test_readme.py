"""What README says works: its Python runs, its commands are those that are checked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import tfcompress

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.program
def test_the_python_of_readme_runs_from_top_to_bottom(tmp_path):
    program = "\n".join(blocks("python"))
    assert program.count("import tflite_export") == 1
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "digits.tflite").stat().st_size > 1000


def test_checks_run_the_second_command_of_readme_as_it_stands():
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("python3 -m venv")]
    assert [command.rsplit(" ", 2)[-2:] for command in commands] == [
        [".venv/bin/tfcompress", "demo"],
        ["-m", "tests"],
    ]
    assert commands[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_table_of_operations_is_the_code_s():
    assert f"\n{tfcompress.quantize.faithful_ops()}\n" in README
