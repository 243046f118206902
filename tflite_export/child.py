"""Runs a file in a process of its own: what makes the runtime abort takes that process, not the caller's.

The caller writes one `.npz` archive to the child's standard input and reads one from its standard output:

    request    content: uint8 bytes of the file     request: JSON {signature, kernels, threads, keep, times, fetch}
               feed_<tensor>: an input's array
    answer     got_<tensor>: an array that was read, or error: the message of an ExportError
"""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.graph import Model, Signature


def run_in_child(
    content: bytes, request: Mapping[str, Any], feeds: Mapping[int, np.ndarray], times: int, fetch: Sequence[int]
) -> dict[int, np.ndarray]:
    """As `Session.run`, in a new process.

    Args:
        content: the file's bytes.
        request: arguments of `Session`: signature (name or None), kernels, threads, keep.
        feeds: input tensor -> [times * batch, ...] in the tensor's type.
        times: number of runs.
        fetch: tensors to be read after each run.

    Raises:
        ExportError: the runtime refused the file, failed, or took the process down; the message holds its last words.
    """
    request = {**request, "times": times, "fetch": [int(index) for index in fetch]}
    arrays: dict[str, Any] = {f"feed_{index}": array for index, array in feeds.items()}
    sent = io.BytesIO()
    arrays |= {"content": np.frombuffer(content, np.uint8), "request": np.array(json.dumps(request))}
    np.savez(sent, **arrays)
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "tflite_export.child"],
        input=sent.getvalue(),
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode:
        raise ExportError(f"The runtime took its process down ({cause(done.returncode)}): {_last_words(done.stderr)}")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as answer:
        if "error" in answer:
            raise ExportError(str(answer["error"]))
        return {int(name.removeprefix("got_")): answer[name] for name in answer.files}


def cause(code: int) -> str:
    """What ended a process, from its return code: its status, or the name of the signal."""
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _last_words(stderr: bytes, lines: int = 4) -> str:
    text = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(text[-lines:]) or "it said nothing"


def _session(content: bytes, model: Model, signature: Signature, request: Mapping[str, Any]) -> Any:
    if request["kernels"] == "tflm":
        from tflite_export.micro_session import MicroSession

        return MicroSession(content, model, signature)
    from tflite_export.session import Session

    return Session(content, model, signature, request["kernels"], request["threads"], keep=request["keep"])


def main() -> None:
    """The child's side."""
    # The runtime may write to standard output, which carries the answer: its writes go to standard error instead.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from tflite_export.flatbuffer import read

    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as archive:
        content, request = archive["content"].tobytes(), json.loads(str(archive["request"]))
        feeds = {int(n.removeprefix("feed_")): archive[n] for n in archive.files if n.startswith("feed_")}
    answer: dict[str, Any] = {}
    try:
        model = read(content)
        signature = model.signature(request["signature"])
        session = _session(content, model, signature, request)
        got = session.run(feeds, request["times"], request["fetch"])
        answer = {f"got_{index}": array for index, array in got.items()}
    except ExportError as error:
        answer = {"error": np.array(str(error))}
    packed = io.BytesIO()
    np.savez(packed, **answer)
    out.write(packed.getvalue())
    out.close()


if __name__ == "__main__":
    main()
