r"""Ask a running server for embeddings, and say whether they are those of the folder that it should serve.

    hf-mic serve-check http://localhost:8000 outputs/mic_adapt/model
    hf-mic serve-check http://localhost:8080 outputs/mic_adapt/model --api tei --dims 32 64

At full width, and at each prefix length that the folder's config.json names or --dims gives. A server that left the map out, refuses
or ignores dimensions, or does not renormalise is recognised, with what to do. Status 2 if the vectors are not those of the folder.
How servers are started: docs/serve.md.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from hf_mic.command_line.options import parse_options

if TYPE_CHECKING:
    from hf_mic.hub.serve_check import ServeReport


@dataclass
class ServeCheckArguments:
    """Which server, and what it should serve."""

    url: str = field(
        metadata={"help": "Address of the server, such as http://localhost:8000; the word --url may be left out."}
    )
    folder: str = field(metadata={"help": "The saved encoder, or its name on the Hub; the second word."})
    api: Literal["openai", "tei"] = field(
        default="openai",
        metadata={"help": "openai: POST URL/v1/embeddings; tei: POST URL/embed of text-embeddings-inference."},
    )
    dims: list[int] | None = field(
        default=None, metadata={"help": "Prefix lengths to ask for. Default: matryoshka_dimensions of config.json."}
    )
    served_model: str | None = field(
        default=None, metadata={"help": "Name under which the server has the model. Default: its first."}
    )
    token_variable: str | None = field(
        default=None, metadata={"help": "Environment variable that holds the key of the server, if it wants one."}
    )
    tolerance: float = field(default=1e-3, metadata={"help": "Largest 1 - cosine of vectors that count as equal."})
    timeout_s: float = field(default=60.0, metadata={"help": "Longest wait for an answer, in seconds."})


def parse(words: Sequence[str]) -> tuple[ServeCheckArguments]:
    """Read the words after the verb."""
    given = list(words)
    if len(given) > 1 and not given[0].startswith("-") and not given[1].startswith("-"):
        given[1:2] = ["--folder", given[1]]
    (args,) = parse_options([ServeCheckArguments], given, __doc__, prog="hf-mic serve-check", positional="url")
    return (args,)


def main(args: ServeCheckArguments) -> ServeReport:
    """Ask and compare.

    Returns:
        What was found at each width.

    Raises:
        ServerError: The server cannot be asked, or serves other vectors.
        ValueError: An option is out of range, or the folder holds no encoder.
    """
    from hf_mic.hub.embedding_server import EmbeddingServer, ServerError
    from hf_mic.hub.serve_check import check_server

    token = None
    if args.token_variable is not None and not (token := os.environ.get(args.token_variable)):
        raise ValueError(f"token_variable={args.token_variable}: there is no such environment variable, or it is empty")
    server = EmbeddingServer(args.url, args.api, args.served_model, token, args.timeout_s)
    report = check_server(server, args.folder, dims=args.dims, tolerance=args.tolerance)
    print("\n".join(report.lines()))
    if not report.same:
        raise ServerError(f"{args.url} does not answer with the embeddings of {args.folder} at every width, see above.")
    print(f"{args.url} answers with the embeddings of {args.folder}.")
    return report
