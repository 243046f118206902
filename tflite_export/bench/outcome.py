"""Results of a file: the fields that every target fills alike."""

import hashlib
from collections.abc import Iterable
from typing import Any

from tflite_export.bench.job import Missing, Named
from tflite_export.bench.result import Result

_LONGEST = 600


def outcome(file: Named, target: str, **fields: Any) -> Result:
    """A result with the file's name, hash and size.

    Args:
        file: what was measured.
        target: such as "host".
        fields: every other field of `Result`.
    """
    digest = hashlib.sha256(file.content).hexdigest()
    return Result(name=file.name, sha256=digest, size=len(file.content), target=target, **fields)


def failed(file: Named, target: str, reason: object, **fields: Any) -> Result:
    """The row of a file that does not run: `reason` in one line of at most 600 characters."""
    text = " ".join(str(reason).split()) or "no reason was given"
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return outcome(file, target, status="failed", reason=text, **fields)


def unavailable(file: Named, target: str, missing: Iterable[Missing], **fields: Any) -> Result:
    """The row of a file whose target is not there: what is missing, with the commands."""
    reason = "; ".join(str(one) for one in missing)
    return outcome(file, target, status="unavailable", reason=reason, **fields)
