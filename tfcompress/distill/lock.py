"""One run at a time on a file."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from tfcompress.core.errors import CompressionError

_held: set[str] = set()  # by this process


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keeps other runs from a file.

    Beside it stands, with ".lock" behind its name, which process of which machine has it; removed at the end. What a
    process of this machine that is gone has left does not count.

    Args:
        path: the file.

    Raises:
        CompressionError: another run has it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with alone(Path(folder, "data")):
    ...         print(os.listdir(folder))
    ...     print(os.listdir(folder))
    ['data.lock']
    []
    """
    lock = path.with_name(f"{path.name}.lock")
    if _left_behind(lock):
        lock.unlink(missing_ok=True)
    try:
        file = lock.open("x", encoding="utf-8")
    except FileExistsError:
        raise CompressionError(
            f"another run writes {os.fspath(path)!r}: wait for its end, or remove {os.fspath(lock)!r} where there is "
            "none"
        ) from None
    name = os.fspath(lock.resolve())
    _held.add(name)
    try:
        with file:
            file.write(f"{os.getpid()} {socket.gethostname()}")
        yield
    finally:
        _held.discard(name)
        lock.unlink(missing_ok=True)


def _left_behind(lock: Path) -> bool:
    """Whether a lock is that of a process which is known to be gone."""
    try:
        number, machine = lock.read_text(encoding="utf-8").split()
        process = int(number)
    except (OSError, ValueError):  # none, or one that is being written
        return False
    if machine != socket.gethostname():
        return False
    if process == os.getpid():  # numbers come again, in containers after each start
        return os.fspath(lock.resolve()) not in _held
    if os.name == "nt":  # there, signal 0 does not only ask
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is somebody else's
        return False
    return False
