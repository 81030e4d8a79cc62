"""Fill a section of a markdown file, such as a README, with the tables of a results json.

The file holds the lines <!-- results:NAME --> and <!-- /results:NAME -->; what stands between them is replaced:

    hf-mic report README.md --name mic_minilm --results model_cards/results/mic_minilm.json
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_mic.command_line.options import parse_options


@dataclass
class ReportArguments:
    """Which results go where."""

    markdown: str = field(metadata={"help": "File that holds the two lines; the word --markdown may be left out."})
    name: str = field(metadata={"help": "NAME of the section."})
    results: str = field(metadata={"help": "Results json."})
    metrics: list[str] = field(
        default_factory=lambda: ["spearman", "accuracy", "ndcg@10"], metadata={"help": "Metrics to show."}
    )
    methods: list[str] | None = field(default=None, metadata={"help": "Methods to show. Default: all."})
    dims: list[int] | None = field(default=None, metadata={"help": "Dimensions to show. Default: all."})


def parse(words: Sequence[str]) -> tuple[ReportArguments]:
    """Read the words after the verb."""
    (args,) = parse_options([ReportArguments], words, __doc__, prog="hf-mic report", positional="markdown")
    return (args,)


def main(args: ReportArguments) -> bool:
    """Fill the section.

    Returns:
        Whether the file changed.

    Raises:
        ValueError: As :func:`hf_mic.reports.sections.fill_section`.
    """
    from hf_mic.reports.sections import fill_section

    changed = fill_section(
        args.markdown, args.name, args.results, metrics=args.metrics, methods=args.methods, dims=args.dims
    )
    print(f"{args.markdown}: section {args.name} {'filled' if changed else 'was up to date'}")
    return changed
