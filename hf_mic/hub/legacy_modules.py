"""Module names of before sentence-transformers 5.4, which servers still read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import nn

from hf_mic.files import read_json, write_text

from .served_order import EMBEDDING, without_idle_normalize

__all__ = ["check_legacy", "has_legacy_modules", "write_legacy_modules"]

NAMES: dict[type[nn.Module], str] = {
    kind: f"sentence_transformers.models.{kind.__name__}" for kind in (Transformer, Pooling, Dense, Normalize)
}
POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
PLAIN_TRANSFORMER = {
    "transformer_task": "feature-extraction",
    "modality_config": {"method": "forward", "method_output_name": "last_hidden_state"},
    "module_output_name": "token_embeddings",
}
SERVED_POOLING = ("cls", "mean", "lasttoken")  # what text-embeddings-inference has


def check_legacy(model: SentenceTransformer) -> list[nn.Module]:
    """Modules that :func:`write_legacy_modules` keeps: transformer, pooling, maps, at most one normalisation at the end.

    text-embeddings-inference and vLLM know no other order, and skip what they do not know, so what they would answer is not
    what the encoder computes.

    Raises:
        ValueError: The encoder has other modules, or settings that the old files or servers do not have.
    """
    modules = without_idle_normalize(list(model))
    kinds = [type(module) for module in modules]
    maps = kinds[2:-1] if kinds[-1] is Normalize else kinds[2:]
    if kinds[:2] != [Transformer, Pooling] or any(kind is not Dense for kind in maps):
        raise ValueError(
            f"legacy_modules=True: the encoder is {[kind.__name__ for kind in kinds]}; servers apply Transformer, Pooling, Dense …, "
            "Normalize in this order and skip the rest. Leave legacy_modules out, or use a map that needs no Normalize before it "
            "(kind orthogonal or linear)"
        )
    for module in modules:
        if problem := _problem(module):
            raise ValueError(
                f"legacy_modules=True: {problem}, which servers of the old names do not read; leave legacy_modules out"
            )
    return modules


def has_legacy_modules(folder: str | Path) -> bool:
    """Whether the modules of a saved encoder have their old names."""
    path = Path(folder, "modules.json")
    return path.is_file() and all(entry["type"] in NAMES.values() for entry in read_json(path))


def write_legacy_modules(model: SentenceTransformer, folder: str | Path) -> None:
    """Give the modules of a saved encoder the names and settings that servers read, and leave out an idle ``Normalize``.

    ``modules.json`` names ``sentence_transformers.models.Dense`` …, all that vLLM of before September 2026 accepts, and
    text-embeddings-inference as of August 2025 (it leaves the maps out else, with a warning); ``1_Pooling/config.json`` holds flags such as
    ``pooling_mode_mean_tokens``, ``sentence_bert_config.json`` the ``max_seq_length``. sentence-transformers of today reads
    both forms: the embeddings are the same.

    Args:
        model: The encoder.
        folder: Where it was saved; these files are replaced, ``modules.json`` last.

    Raises:
        ValueError: As :func:`check_legacy`, before anything is written.

    Example:
        >>> encoder.save_pretrained("encoder")
        >>> write_legacy_modules(encoder, "encoder")
        >>> [entry["type"] for entry in json.loads(Path("encoder", "modules.json").read_text())]
        ['sentence_transformers.models.Transformer', 'sentence_transformers.models.Pooling']
    """
    folder, modules = Path(folder), check_legacy(model)
    listed = read_json(folder / "modules.json")
    # By the object, because a Normalize may have moved.
    entries = {id(module): entry for module, entry in zip(model, listed, strict=True)}
    kept = []
    for place, module in enumerate(modules):
        entry = entries.pop(id(module))
        kept.append(entry | {"idx": place, "name": str(place), "type": NAMES[type(module)]})
        if settings := _settings(module):
            name, values = settings
            write_text(folder / entry["path"] / name, json.dumps(values, indent=4) + "\n")
    write_text(folder / "modules.json", json.dumps(kept, indent=2) + "\n")
    for left in entries.values():
        shutil.rmtree(folder / left["path"])


def _problem(module: nn.Module) -> str | None:
    """What of a module the old files cannot say, or servers do not have."""
    if isinstance(module, Transformer):
        config = module.get_config_dict()
        config["modality_config"] = config["modality_config"].get("text")  # what servers embed
        other = {name: value for name, value in config.items() if value != PLAIN_TRANSFORMER.get(name)}
        return f"the Transformer has {other}" if other else None
    if isinstance(module, Pooling):
        if module.pooling_mode not in SERVED_POOLING:
            return f"the Pooling has pooling_mode={module.pooling_mode!r}"
        return None if module.include_prompt else "the Pooling has include_prompt=False"
    if isinstance(module, Dense):
        if not isinstance(module.activation_function, nn.Identity | nn.Tanh):
            return f"a Dense has the activation {type(module.activation_function).__name__}"
        if module.use_residual:
            return "a Dense has use_residual=True"
    if isinstance(module, Dense | Normalize) and {module.module_input_name, module.module_output_name} != {EMBEDDING}:
        return f"a {type(module).__name__} reads or writes something else than {EMBEDDING}"
    return None


def _settings(module: nn.Module) -> tuple[str, dict[str, Any]] | None:
    """Name and content of the file with the settings of a module, as it was."""
    if isinstance(module, Transformer):
        longest = [module.max_seq_length, getattr(module.config.get_text_config(), "max_position_embeddings", None)]
        known = [length for length in longest if length is not None]
        return module.config_file_name, {
            "max_seq_length": min(known) if known else None,
            "do_lower_case": module.do_lower_case,
        }
    if isinstance(module, Pooling):
        flags = {flag: mode == module.pooling_mode for mode, flag in POOLING_FLAGS.items()}
        return module.config_file_name, {
            "word_embedding_dimension": module.embedding_dimension,
            **flags,
            "include_prompt": True,
        }
    if isinstance(module, Dense):
        names = ("module_input_name", "module_output_name")
        return module.config_file_name, {k: v for k, v in module.get_config_dict().items() if k not in names}
    return None
