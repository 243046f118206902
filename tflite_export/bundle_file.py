"""Files of a bundle on disk: all of them or none."""

import contextlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tflite_export.errors import ExportError
from tflite_export.files import write_whole


def write_bundle(out: str | os.PathLike[str], files: Mapping[str, bytes]) -> Path:
    """Writes a bundle as a folder, or as one file where `out` ends in `.zip`.

    A folder is made beside and renamed; one that is there is replaced when it is a bundle or empty.

    Args:
        out: the target; the folder around it must exist.
        files: name with `/` -> content, `manifest.json` among them.

    Returns:
        The path that was written.

    Raises:
        ExportError: it cannot be written, or something that is no bundle is in the way; nothing is left behind.
    """
    path = Path(out)
    if path.name.endswith(".zip"):
        return write_whole(path, _zipped(files))
    target = path.resolve()
    if target.exists() and not _replaceable(target):
        raise ExportError(f"`out` is there and is no bundle, it is left alone. Received: out={str(path)!r}")
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ExportError(f"Cannot write {str(path)!r}: {reason}. Nothing was written.") from error
    fresh, old = beside / "new", beside / "old"
    try:
        for name, content in files.items():
            file = fresh / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            with contextlib.suppress(OSError):
                old.rename(target)
            raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ExportError(f"Cannot write {str(path)!r}: {reason}. Nothing was written.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return path


def _replaceable(target: Path) -> bool:
    return target.is_dir() and ((target / "manifest.json").is_file() or not any(target.iterdir()))


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """One archive with fixed dates: the same files give the same bytes."""
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return result.getvalue()
