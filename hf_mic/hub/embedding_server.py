"""Asking a running server for embeddings: the OpenAI protocol and that of text-embeddings-inference, over the standard library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from hf_mic.options import check_choice

__all__ = ["DimensionsRefusedError", "EmbeddingServer", "ServerError"]

API = Literal["openai", "tei"]
REFUSALS = (400, 413, 422)  # vLLM and text-embeddings-inference answer a wrong request with one of these


class ServerError(RuntimeError):
    """A server that cannot be reached, or whose answer holds no embeddings of the texts."""


class DimensionsRefusedError(ServerError):
    """A server that does not shorten the embeddings of this model; the text ends with what it said."""


@dataclass(frozen=True)
class EmbeddingServer:
    """A server of embeddings.

    Attributes:
        url: Its address, such as ``http://localhost:8000``; one that ends in ``/v1`` is read as the same.
        api: ``openai``: ``POST URL/v1/embeddings``, which vLLM, text-embeddings-inference, Ollama and others have; ``tei``:
            ``POST URL/embed`` of text-embeddings-inference.
        model: Name under which it serves the model, for ``openai``. Default: the first that ``URL/v1/models`` lists.
        token: Sent as a bearer token.
        timeout_s: Longest wait for an answer.

    Raises:
        ValueError: The address is none of http or https, or ``api`` is unknown.

    Example:
        >>> EmbeddingServer("localhost:8000")
        Traceback (most recent call last):
            ...
        ValueError: url='localhost:8000': must begin with http:// or https://
    """

    url: str
    api: API = "openai"
    model: str | None = None
    token: str | None = None
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url={self.url!r}: must begin with http:// or https://")
        check_choice("api", self.api, get_args(API))

    def embed(self, texts: Sequence[str], dimensions: int | None = None) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: At least one.
            dimensions: Width that is asked for. Default: whatever the server gives.

        Returns:
            As the server sent them, which may be of another width. Shape: (len(texts), width).

        Raises:
            DimensionsRefusedError: The server answers a request with ``dimensions`` by an error of the request.
            ServerError: It cannot be reached, answers with another error, or with no such vectors.
        """
        wish = {} if dimensions is None else {"dimensions": dimensions}
        if self.api == "tei":  # truncate: texts, not vectors
            address, body = f"{self._root()}/embed", {"inputs": list(texts), "truncate": True, **wish}
        else:
            address = f"{self._root()}/v1/embeddings"
            body = {
                "model": self.model or self._first_model(),
                "input": list(texts),
                "encoding_format": "float",
                **wish,
            }
        try:
            answer = self._ask(address, body)
        except _StatusError as error:
            if dimensions is not None and error.status in REFUSALS:
                raise DimensionsRefusedError(f"{address} refuses dimensions={dimensions}: {error.said}") from error
            raise ServerError(f"{address} answers {error.status}: {error.said}") from error
        return _vectors(answer, len(texts), address, self.api)

    def _root(self) -> str:
        return self.url.rstrip("/").removesuffix("/v1")

    def _first_model(self) -> str:
        """The name of the model; a server without such a list takes any."""
        try:
            listed = self._ask(f"{self._root()}/v1/models")
            return str(listed["data"][0]["id"])
        except (_StatusError, LookupError, TypeError):
            return "default"

    def _ask(self, address: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.token}"} if self.token else {}
        )
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            raise _StatusError(error.code, _said(error.read().decode(errors="replace"))) from error
        except OSError as error:  # refused, reset, no such host, timed out
            reason = getattr(error, "reason", error)
            raise ServerError(
                f"{address} cannot be reached: {reason} (is the server up, and the address right?)"
            ) from error
        try:
            return json.loads(text)
        except ValueError as error:
            raise ServerError(
                f"{address} does not answer in JSON but with {text[:80]!r} (is it another service?)"
            ) from error


class _StatusError(ServerError):
    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status, self.said = status, said


def _said(text: str) -> str:
    """The words in the body of an error, where the server puts them."""
    try:
        found = json.loads(text)
        found = found.get("error", found.get("message", text))
        text = found["message"] if isinstance(found, dict) else str(found)
    except (ValueError, LookupError, AttributeError):
        pass  # no JSON, or of another form: as it is
    return text.strip()[:500]


def _vectors(answer: Any, count: int, address: str, api: API) -> NDArray[np.float32]:
    """The vectors of an answer, in the order of the texts.

    Raises:
        ServerError: There are none, too many or too few, or they are no vectors of finite numbers of one width.
    """
    try:
        rows = answer
        if api == "openai":
            rows = [item["embedding"] for item in sorted(answer["data"], key=lambda item: item["index"])]
        vectors = np.asarray(rows, dtype=np.float32)
    except (LookupError, TypeError, ValueError) as error:
        raise ServerError(
            f"{address} answers without embeddings: {str(answer)[:200]} (is it an embedding model?)"
        ) from error
    if vectors.ndim != 2 or len(vectors) != count or vectors.size == 0:
        raise ServerError(f"{address} answers {count} texts with vectors of shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ServerError(f"{address} answers with vectors that are not finite")
    return vectors
