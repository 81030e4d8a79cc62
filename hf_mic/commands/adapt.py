"""Make existing embeddings truncatable: fit a map on the vectors, write the adapted index and the adapted model.

Vectors that are already in a file, from any encoder or an API, no text and no labels needed (400 steps, 10 to 15 s on one CPU core for
384 dimensions, then about 1 s per 200,000 vectors); the adapted index keeps 32 of 384 coordinates:

    hf-mic adapt --embeddings index.npy --output_dim 32

Queries go through the same map, hf_mic.frozen.PrefixMap.load("outputs/mic_adapt/map.safetensors").apply(query_vectors, dim=32).

In 8 bytes per vector instead of 4 per coordinate; of all maps, dimensions and bits that fill them, the one that keeps most neighbours of
vectors held out is taken, and the table of all is printed:

    hf-mic adapt index.npy --bytes 8 --output_dir outputs/index8

writes the codes (codes.npy) and what reads them: hf_mic.Compressor.load("outputs/index8").search(query_vectors, codes).

A sentence-transformers model and texts like those it will see; the result is a model that loads with
SentenceTransformer("outputs/mic_adapt/model", truncate_dim=32), without this package:

    hf-mic adapt --model sentence-transformers/all-MiniLM-L6-v2 --texts sentences.txt

With both --embeddings and --model, the map is fitted on the vectors and appended to the model that made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hf_mic.command_line.options import parse_options
from hf_mic.frozen.config import AdaptConfig
from hf_mic.options import check_at_least, check_between

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

    from hf_mic.frozen.compressor import Compressor
    from hf_mic.frozen.prefix_map import PrefixMap


WORTH_IT = 0.01  # share of neighbours; less is noise of a few hundred vectors


@dataclass
class AdaptArguments:
    """Where vectors or texts come from and what is written."""

    embeddings: str | None = field(
        default=None,
        metadata={
            "help": "Vectors to fit on, of shape (N, D): .npy, read as a memory map, .npz, .safetensors, .csv or .parquet. The word "
            "--embeddings may be left out."
        },
    )
    model: str | None = field(
        default=None,
        metadata={"help": "Encoder of the vectors, a folder or a name on the Hub; the map is appended to it."},
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Name on the Hub of --model, for the card, if --model is a folder."}
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
    bytes: int | None = field(
        default=None,
        metadata={
            "help": "Write codes of so many bytes per vector instead of a mapped index; map, dimensions and bits are chosen. --dims is "
            "not used then."
        },
    )
    legacy_modules: bool = field(
        default=False,
        metadata={
            "help": "Save the model with the module names that text-embeddings-inference and older vLLM read, see docs/serve.md."
        },
    )
    output_dir: str = field(
        default="outputs/mic_adapt",
        metadata={
            "help": "Folder of map.safetensors, index.npy (with vectors), model (with --model); with --bytes of the compressor and codes.npy."
        },
    )

    def __post_init__(self) -> None:
        if self.max_texts is not None:
            check_at_least("max_texts", self.max_texts, 3)
        to_write = self.embeddings is not None or self.index is not None
        for fits, needed in (
            (
                (self.embeddings is None) != (self.texts is None),
                "Give either --embeddings (a file of vectors) or --texts to fit on.",
            ),
            (self.texts is None or self.model is not None, "--texts needs --model to embed them."),
            (
                not self.legacy_modules or self.model is not None,
                "--legacy_modules is about the model: give --model too.",
            ),
            (
                self.output_dim is None or to_write,
                "--output_dim is the width of the index: give --index or --embeddings too.",
            ),
            (
                self.bytes is None or (self.model is None and self.output_dim is None),
                "--bytes makes codes of vectors: leave out --model, --texts and --output_dim (embed texts first).",
            ),
        ):
            if not fits:
                raise ValueError(needed)


def parse(words: Sequence[str]) -> tuple[AdaptArguments, AdaptConfig]:
    """Read the words after the verb."""
    args, config = parse_options(
        (AdaptArguments, AdaptConfig), words, __doc__, prog="hf-mic adapt", positional="embeddings"
    )
    return args, config


def main(args: AdaptArguments, config: AdaptConfig) -> PrefixMap | Compressor:
    """Fit the map and write what was asked for.

    Returns:
        The map, or with ``--bytes`` the compressor.

    Raises:
        ValueError: If vectors, texts or widths do not fit together.
    """
    from hf_mic.evaluation.loading import load_encoder
    from hf_mic.files import replaced_files
    from hf_mic.frozen.appended import append_to_model
    from hf_mic.frozen.fit import fit_map
    from hf_mic.frozen.index import open_vectors, write_mapped_index
    from hf_mic.hub.legacy_modules import check_legacy

    model = load_encoder(args.model) if args.model else None
    if model is not None and args.texts is not None:
        vectors = model.encode(_read_texts(args), batch_size=64, show_progress_bar=True)
    else:
        vectors = open_vectors(str(args.embeddings))
    index, width = args.index or args.embeddings, vectors.shape[-1]
    if index is not None and open_vectors(index).shape[1:] != (width,):
        raise ValueError(f"{index} must hold vectors of the width {width} that the map is fitted on.")
    if args.output_dim is not None:
        check_between("output_dim", args.output_dim, 1, width)  # before the fit
    if args.bytes is not None:
        return _compress(args, config, vectors)
    if model is not None and args.legacy_modules:
        check_legacy(model)
    fitted = fit_map(vectors, config)
    mapped = None if model is None else append_to_model(model, fitted)
    if mapped is not None and args.legacy_modules:
        check_legacy(mapped)  # with its map, and before anything is written
    output = Path(args.output_dir)
    print(describe_fit(fitted, len(vectors)))
    # Both at once: an index beside another fit's map finds neighbours that are none, and says nothing.
    with replaced_files(output) as aside:
        fitted.save(aside / "map.safetensors")
        if index is not None:
            write_mapped_index(fitted, index, aside / "index.npy", args.output_dim)
        elif (output / "index.npy").exists():
            (output / "index.npy").unlink()
            print(f"Removed: {output / 'index.npy'}, which another map made")
        written = [output / path.name for path in sorted(aside.iterdir(), reverse=True)]
    if mapped is not None and model is not None:
        save_adapted(
            mapped,
            model,
            args,
            describe_fit(fitted, len(vectors)),
            min(fitted.config["dims"], key=lambda dim: abs(dim - 32)),
        )
        written.append(output / "model")
    print("Written:", ", ".join(map(str, written)))
    if index is not None:
        print(f"Next, every measure before and after: hf-mic inspect {index} --map {output} --html")
    elif mapped is not None:
        print(f"Next, on tasks: hf-mic evaluate --models {output / 'model'} {args.model} --methods adapted truncation")
    return fitted


def save_adapted(
    mapped: SentenceTransformer, model: SentenceTransformer, args: AdaptArguments, fitted: str, truncate_dim: int
) -> None:
    """Write the adapted model, with a card that says how it is truncated and what its map was fitted on."""
    from hf_mic.cards.card import complete_model_card, hub_name
    from hf_mic.hub.legacy_modules import write_legacy_modules

    folder = Path(args.output_dir) / "model"
    about, before = mapped.model_card_data, model.model_card_data
    about.license, about.language = before.license, before.language
    about.base_model = args.base_model or hub_name(str(args.model)) or before.base_model
    mapped.save(str(folder))
    if args.legacy_modules:
        write_legacy_modules(mapped, folder)
    start = "" if about.base_model else f" The encoder itself is that of `{Path(str(args.model)).name}`."
    complete_model_card(
        folder,
        trained=f"A map after the encoder; the encoder's weights are unchanged.{start}\n\n{fitted}",
        truncate_dim=truncate_dim,
    )


def describe_fit(fitted: PrefixMap, count: int) -> str:
    """What a map was fitted on, and whether it helped: neighbours kept before and after, of vectors that it was not fitted on.

    Args:
        fitted: The map, as :func:`hf_mic.frozen.fit_map` returns it.
        count: Vectors that were given.
    """
    terms = ", ".join(f"{name} {value:.4f}" for name, value in fitted.losses.items())
    lines = [
        f"{fitted.kind} map fitted on {count:,} vectors. Terms of the loss: {terms}, where smaller is better also below 0."
    ]
    if not fitted.held_out:
        return f"{lines[0]} Too few vectors to hold some out: whether the map helps was not measured."
    bits = fitted.config.get("bits")
    stored = "" if bits is None else f" in {bits}-bit codes"
    lines += [
        f"\nOf the ten nearest vectors at full width, % that the first coordinates{stored} keep, for vectors held out of the fit:\n",
        "| dimensions | as they are | PCA | map |",
        "| --: | --: | --: | --: |",
        *(
            f"| {row['dim']} | {100 * row['truncation']:.1f} | {100 * row['pca']:.1f} | {100 * row['map']:.1f} |"
            for row in fitted.held_out
        ),
    ]
    gains = [row["map"] - row["truncation"] for row in fitted.held_out]
    better = [str(row["dim"]) for row, gain in zip(fitted.held_out, gains, strict=True) if gain > WORTH_IT]
    if len(better) == len(gains):
        said = "The map helps at every length."
    elif better:
        said = f"The map helps at {', '.join(better)} dimensions; at the others it makes no difference of a point or costs some."
    else:
        said = "The map does not help: keep the vectors as they are, or fit on more of them."
    return "\n".join([*lines, "", said])


def _compress(args: AdaptArguments, config: AdaptConfig, vectors: NDArray) -> Compressor:
    """Choose a code, write it and the codes, and say what it keeps."""
    from hf_mic.frozen.compressor import Compressor
    from hf_mic.frozen.index import open_vectors

    chosen = Compressor.fit(vectors, args.bytes or 0, seed=config.seed, config=config, progress=True)
    output = Path(args.output_dir)
    index = open_vectors(args.index) if args.index else vectors
    (output / "codes.npy").unlink(missing_ok=True)  # of another compressor, whose codes this one would read as its own
    chosen.save(output)
    written = chosen.transform_to(output / "codes.npy", index)
    print("\n| map | rotated | dims | bits | neighbours kept | Spearman |\n| --- | --- | --: | --: | --: | --: |")
    for row in chosen.report:
        turned = "yes" if row.rotation else "no"
        print(
            f"| {row.map} | {turned} | {row.dims} | {row.bits} | {100 * row.neighbours_kept:.1f} | {100 * row.spearman:.1f} |"
        )
    size, whole = chosen.bytes_per_vector, vectors.shape[1] * vectors.dtype.itemsize
    print(
        f"\nIn % of the ten nearest neighbours at full width, of vectors held out. Taken: the first row, {size} of {whole} bytes per vector. "
        "As the best of many, it may keep a little less of other vectors."
    )
    print(f"Written: {len(index):,} codes in {written}; the compressor in {output}")
    return chosen


def _read_texts(args: AdaptArguments) -> list[str]:
    """The distinct texts, in their order."""
    from hf_mic.evaluation.tables import read_columns

    table = read_columns(str(args.texts), args.text_columns)
    return list(dict.fromkeys(text for column in table.values() for text in column))[: args.max_texts]
