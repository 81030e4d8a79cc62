r"""Fine-tune a sentence encoder so that its embeddings can be truncated: MIC, or one of the methods it is compared with.

One GPU, question-answer pairs from the Hub, scored at each dimension at the end:

    hf-mic train --model sentence-transformers/all-MiniLM-L6-v2 --method mic \
        --data sentence-transformers/natural-questions --columns '{"anchor": "query", "positive": "answer"}' \
        --output_dir outputs/mic_nq --per_device_train_batch_size 64 --num_train_epochs 1 --bf16 \
        --eval_tasks stsb banking77

Several GPUs, batch statistics and negatives over all of them; two CPU processes (with --cpu, accelerate starts several only through MPI;
--multi_gpu starts them, --use_cpu keeps them on CPU):

    accelerate launch --num_processes 4 -m hf_mic train settings.yaml --gather_across_devices
    accelerate launch --multi_gpu --num_processes 2 -m hf_mic train settings.yaml --use_cpu --max_steps 20

Unsupervised (SimCSE: each sentence twice, dropout makes the difference), resumed after an interruption:

    hf-mic train settings.yaml --unsupervised --resume_from_checkpoint last

(the newest whole checkpoint of OUTPUT_DIR; without one, last starts anew and says so, True refuses).

All options can stand in a YAML file, given first or as --config; options on the command line replace its values. The saved model
needs only sentence-transformers: SentenceTransformer(output_dir, truncate_dim=32).

--push_to_hub --hub_model_id NAMESPACE/NAME --license apache-2.0 publishes the encoder at the end, and only then, as the verb publish
does. The repository is private unless --hub_private_repo False is given; --hub_revision names a branch, --hub_strategy has no effect.

A step of MiniLM with MIC on 2 x 32 sentences of up to 54 tokens takes about 3 s on one core (Xeon).

Beside the options below, all training arguments of sentence-transformers are accepted, such as --output_dir, --max_steps, --seed and
--report_to: --help-all lists them too.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn

from hf_mic.command_line.options import HelpFormatter, make_parser, read_words, refuse_unknown, shorten_usage
from hf_mic.command_line.train_arguments import TrainArguments
from hf_mic.options import MICOptions

if TYPE_CHECKING:
    from hf_mic.training_args import MICTrainingArguments


def parse(words: Sequence[str]) -> tuple[TrainArguments, MICTrainingArguments]:
    """Read the words after the verb; ``--help`` answers without the seconds that importing the trainer takes."""
    if {"-h", "--help"} & set(words):
        _short_parser().parse_args(["--help"])
    if "--help-all" in words:
        _show_all_options()
    from transformers import HfArgumentParser

    from hf_mic.training_args import MICTrainingArguments

    kinds: Any = [TrainArguments, MICTrainingArguments]
    parser = HfArgumentParser(kinds, prog="hf-mic train", allow_abbrev=False)
    own, inherited = ([f.name for f in fields(kind) if f.init] for kind in kinds)
    given = read_words(words, [*own, *inherited])
    shorten_usage(parser)
    refuse_unknown(parser, given)
    parsed = vars(parser.parse_args(given))
    args = TrainArguments(**{name: parsed[name] for name in own})
    return args, MICTrainingArguments(**{name: parsed[name] for name in inherited})


def _short_parser(**about: Any) -> argparse.ArgumentParser:
    """The options of this verb and of MIC."""
    return make_parser((TrainArguments, MICOptions), __doc__, prog="hf-mic train", **about)


def _show_all_options() -> NoReturn:
    """Print those of sentence-transformers too, after the others, and end."""
    from sentence_transformers import SentenceTransformerTrainingArguments
    from transformers import HfArgumentParser

    kind: Any = SentenceTransformerTrainingArguments
    inherited = HfArgumentParser(kind, add_help=False)
    inherited._optionals.title = "Training arguments of sentence-transformers"
    for action in inherited._actions:
        if action.option_strings[0].startswith(
            "--no_"
        ):  # HfArgumentParser repeats the help of the option that is turned off
            action.help = f"Set {action.dest} to False."
    parents = [_short_parser(add_help=False), inherited]
    parser = argparse.ArgumentParser(
        prog="hf-mic train", description=__doc__, formatter_class=HelpFormatter, parents=parents
    )
    shorten_usage(parser)
    parser.print_help()
    raise SystemExit(0)


def main(args: TrainArguments, training: MICTrainingArguments) -> dict[str, Any] | None:
    """Train, save, score, write the card, publish if that is asked for.

    Returns:
        The results as written to the json file, ``None`` without tasks or in a process other than the first.

    Raises:
        ValueError: If data, model and options do not fit together.
    """
    from hf_mic.evaluation.text_tasks import load_tasks
    from hf_mic.hub.legacy_modules import check_legacy
    from hf_mic.hub.push import take_hub_arguments
    from hf_mic.runs.training_run import build_trainer, finish, warn_about_single_process

    hub = take_hub_arguments(training)
    if hub and args.license is None:
        raise ValueError(
            "--push_to_hub needs --license, such as apache-2.0: a card without a license is not published."
        )
    warn_about_single_process()
    names = args.eval_tasks or (["stsb", "banking77", "scifact"] if args.eval_data_dir else [])
    tasks = load_tasks(names, args.eval_data_dir, validation=args.eval_validation)
    trainer = build_trainer(args, training)
    if args.legacy_modules:
        check_legacy(trainer.model)  # not after hours of training
    trainer.train(training.resume_from_checkpoint)
    trainer.save_model()
    # The last collective must carry no tensor: a gloo thread that frees one while Python finishes aborts the process (torch 2.13).
    trainer.accelerator.wait_for_everyone()
    results = finish(trainer, args, tasks, hub) if trainer.is_world_process_zero() else None
    trainer.accelerator.end_training()
    return results
