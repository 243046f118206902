"""A language model behind an OpenAI-compatible HTTP endpoint, as a function from prompts to texts."""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from tfcompress.core.scalars import is_finite, is_whole
from tfcompress.distill.data_builder import CutOff, Retry

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # 529: overloaded, as some servers say


class Endpoint:
    """Asks `POST {url}/chat/completions`, one request a prompt.

    Args:
        url: up to and with the version, such as "http://127.0.0.1:8000/v1".
        model: the name that the server knows.
        key: sent as a bearer token; default: the environment variable OPENAI_API_KEY, none when it is not set.
        system: a system message in front of each prompt.
        temperature: of sampling, from 0.
        max_tokens: of an answer.
        timeout: seconds for which the server may send nothing.
        further: further fields of the request, such as {"top_p": 0.9}.

    Raises:
        ValueError: the URL is none of http or https, or a number is not one of those.

    When called, asks for each prompt in turn and gives the answers; one that the server cut off at `max_tokens` is a
    `CutOff`. Raises `Retry` for what may pass (a busy server, no connection, a broken reply), with the answers to the
    other prompts; and RuntimeError with the server's words for what will not (a wrong key, an unknown model).

    >>> Endpoint("http://127.0.0.1:8000/v1", "teacher").address
    'http://127.0.0.1:8000/v1/chat/completions'
    """

    def __init__(
        self, url: str, model: str, *, key: str | None = None, system: str = "", temperature: float = 0.7,
        max_tokens: int = 512, timeout: float = 120.0, further: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"`url` must begin with http:// or https://. Received: url={url!r}")
        numbers = (
            ("temperature", temperature, "a number from 0 on", is_finite(temperature) and temperature >= 0),
            ("max_tokens", max_tokens, "a whole number from 1", is_whole(max_tokens)),
            ("timeout", timeout, "a number above 0", is_finite(timeout) and timeout > 0),
        )
        for name, value, expected, right in numbers:
            if not right:
                raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
        self.address = f"{url.rstrip('/')}/chat/completions"
        self._key = os.environ.get("OPENAI_API_KEY", "") if key is None else key
        self._system, self._timeout = system, float(timeout)
        sampling = {"temperature": float(temperature), "max_tokens": int(max_tokens)}
        self._fields = {"model": model, **sampling, **(further or {})}

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """An answer to each prompt."""
        answers: list[str | None] = []
        trouble: Retry | None = None
        for place, prompt in enumerate(prompts):
            try:
                answers.append(self._answer(prompt))
                continue
            except Retry as error:
                after = max(error.after or 0.0, (trouble.after or 0.0) if trouble else 0.0)
                trouble = Retry(str(error), after or None)
            except RuntimeError as error:
                if not any(answer is not None for answer in answers):
                    raise
                # What was answered is handed over; asked again without it, the server refuses at once.
                trouble = Retry(str(error))
                answers += [None] * (len(prompts) - place)
                break
            answers.append(None)
        if trouble is not None:
            raise Retry(str(trouble), trouble.after, answers)
        return [answer for answer in answers if answer is not None]

    def _answer(self, prompt: str) -> str:
        messages = [{"role": "system", "content": self._system}] if self._system else []
        body = {**self._fields, "messages": [*messages, {"role": "user", "content": prompt}]}
        try:
            answer = json.loads(self._sent(json.dumps(body).encode()))
        except ValueError as error:  # no JSON, or no UTF-8
            raise Retry(f"{self.address} answers what is no JSON: {error}") from None
        try:
            choice = answer["choices"][0]
            text = _text(choice["message"]["content"])
        except (KeyError, IndexError, TypeError, AttributeError):
            words = str(answer)[:300]
            raise RuntimeError(f"{self.address} answers without choices[0].message.content, a text: {words}") from None
        return CutOff(text) if choice.get("finish_reason") == "length" else text

    def _sent(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.address, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            words = _words(error)
            if error.code in _BUSY:
                raise Retry(f"HTTP {error.code}: {words}", _seconds(error.headers.get("Retry-After"))) from None
            raise RuntimeError(f"{self.address} refuses: HTTP {error.code}: {words}") from None
        except (OSError, http.client.HTTPException) as error:  # no connection, or one that broke
            reason = getattr(error, "reason", None) or repr(error)
            raise Retry(f"{self.address} does not answer: {reason}") from None


def _text(content: Any) -> str:
    """The text of an answer, which may come in parts; those of another kind than text have none.

    Raises:
        TypeError: it is no text, nor parts.
    """
    if not content:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError(f"`content` must be a text or parts. Received: {content!r}")
    texts = [part if isinstance(part, str) else part.get("text", "") for part in content]
    return "".join(text for text in texts if isinstance(text, str))


def _words(error: urllib.error.HTTPError) -> str:
    try:
        return error.read().decode(errors="replace").strip()[:300]
    except (OSError, http.client.HTTPException):  # the status says enough
        return ""


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text) if text else None
    except ValueError:  # a date: the usual wait will do
        return None
    return seconds if is_finite(seconds) else None
