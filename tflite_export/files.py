"""Bytes on disk: read with a clear reason on failure, written whole or not at all."""

import contextlib
import os
import tempfile
import zlib
from pathlib import Path

from tflite_export.errors import ExportError


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Writes `content` beside the target and renames it, so that no reader ever sees half a file.

    Args:
        path: the target; its folder must exist and be writable. An existing file is replaced.
        content: what the file will hold.

    Returns:
        The path that was written.

    Raises:
        ExportError: the target cannot be written; nothing is left behind and an existing file is unchanged.
    """
    asked = Path(path)
    target = asked.resolve()  # a link stays a link to the file that is replaced
    if target.is_dir():
        raise ExportError(f"`path` must name a file, but it is a folder. Received: path={str(asked)!r}")
    if target.exists() and not target.is_file():
        raise ExportError(f"`path` must name a file, but it is no ordinary file. Received: path={str(asked)!r}")
    # A rename would silently replace a file that its owner made read-only, and root may write everywhere: what is
    # marked read-only for everyone is left alone.
    for place, what in ((target, "file"), (target.parent, "folder")):
        if place.exists() and not place.stat().st_mode & 0o222:
            raise ExportError(f"Cannot write {str(asked)!r}: the {what} is read-only. Nothing was written.")
    beside = ""
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, target)
    except BaseException as error:
        if beside:
            with contextlib.suppress(OSError):
                os.unlink(beside)
        if isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
            raise ExportError(f"Cannot write {str(asked)!r}: {reason}. Nothing was written.") from error
        raise
    return asked


def gzipped(content: bytes) -> bytes:
    """The smallest gzip stream that zlib makes of these bytes; anything that reads gzip reads it.

    Small integers in no order, as the kernels of an INT8 file are, take about 8 % less without the short matches that
    `gzip -9` looks for: zlib has strategies for them, and the least of all is what is returned.

    Source: zlib manual, deflateInit2, `strategy`.

    >>> import gzip
    >>> gzip.decompress(gzipped(b"TFL3" * 100)) == b"TFL3" * 100
    True
    """
    streams = []
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY):
        packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
        streams.append(packer.compress(content) + packer.flush())
    return min(streams, key=len)


def _umask() -> int:
    """The process's file mode mask (the only way to read it is to set it)."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
