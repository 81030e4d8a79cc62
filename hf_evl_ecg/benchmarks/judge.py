"""A language model as judge, behind any URL that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from hf_evl_ecg.arguments import check_at_least

__all__ = ["Judge", "JudgeError"]

logger = logging.getLogger(__name__)

LONGEST_WAIT_S = 60.0
_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}


class JudgeError(RuntimeError):
    """A judge that did not give a verdict, however often it was asked."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the key would go to wherever the answer points."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Judge:
    """Asks a model for its verdict.

    The key is read from the environment when it is needed and kept nowhere: not in this object, in no file, no message.

    Attributes:
        url: Base URL, such as ``https://api.openai.com/v1`` or ``http://localhost:8000/v1``.
        model: Name of the model there.
        key_variable: Environment variable with the key; unset for servers that want none.
        timeout_s: Longest wait for one reply (s).
        retries: How often a request is repeated that failed for a passing reason (time, connection, 429, 5xx).
        backoff_s: Wait before the first repetition (s), doubled each time, unless the server says how long to wait.
        temperature: Temperature of the verdicts; None leaves it to the server, as some reasoning models want.

    Raises:
        ValueError: A URL that is none, or that holds a password or parameters, which would be written into results.

    Example:
        >>> Judge("http://localhost:8000/v1", "llama").url
        'http://localhost:8000/v1'
    """

    url: str
    model: str
    key_variable: str = "JUDGE_API_KEY"
    timeout_s: float = 120.0
    retries: int = 5
    backoff_s: float = 1.0
    temperature: float | None = 0.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"judge_url={self.url!r}: http:// or https:// and a host are needed")
        if parts.username or parts.password or parts.query or parts.fragment:  # not shown: it may hold a key
            raise ValueError(
                f"judge_url: one without user name, password and parameters is allowed (put the key into {self.key_variable})"
            )
        check_at_least("timeout_s", self.timeout_s, 0.001)
        check_at_least("retries", self.retries, 0)

    def ask(self, prompt: str) -> str:
        """The verdict on a prompt, as the model wrote it.

        Raises:
            JudgeError: The judge refused, or failed ``retries`` + 1 times.
        """
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        data = json.dumps(body).encode()
        for attempt in range(self.retries + 1):
            try:
                return self._request(data)
            except urllib.error.HTTPError as error:
                reason, wait = self._reason(error), error.headers.get("Retry-After", "")
                if error.code not in _RETRIED:
                    raise JudgeError(f"The judge at {self.url} refused: {reason}") from None
            except (OSError, HTTPException, ValueError) as error:  # no connection, time, half a reply, no json
                reason, wait = self._hide(f"{type(error).__name__}: {error}"), ""
            if attempt < self.retries:
                pause = min(float(wait) if wait.isdecimal() else self.backoff_s * 2**attempt, LONGEST_WAIT_S)
                logger.warning("judge: %s; asking again in %.1f s", reason, pause)
                time.sleep(pause)
        raise JudgeError(f"The judge at {self.url} failed {self.retries + 1} times, at last: {reason}")

    def _request(self, data: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", data, headers, method="POST")
        opener = urllib.request.build_opener(_NoRedirect())
        with opener.open(request, timeout=self.timeout_s) as reply:
            content = json.loads(reply.read())
        try:
            text = content["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise ValueError("the reply holds no choices[0].message.content") from None
        if not isinstance(text, str):
            raise ValueError("the reply's content is no text")
        return text

    def _reason(self, error: urllib.error.HTTPError) -> str:
        try:
            said = error.read(500).decode("utf-8", "replace")
        except (OSError, HTTPException):
            said = ""
        return self._hide(f"HTTP {error.code} {error.reason} {said}".strip())

    def _hide(self, text: str) -> str:
        """A server may repeat the key in its message."""
        key = os.environ.get(self.key_variable)
        return text.replace(key, "[key]") if key else text
