"""A training step with MIC against MatryoshkaLoss on the same encoder and batch: time and peak memory, as ratios to MatryoshkaLoss.

A step is forward, backward and AdamW update on one batch of pairs. The losses take turns in every round, first to last and
last to first; a ratio is the median over rounds of a loss's time to MatryoshkaLoss's in the same round, so a machine that
slows down for a while slows both. On a CPU the time is that of the process, which other processes disturb little; with one
thread it is the time on the clock of a free machine. Peak memory is the largest sum of tensors allocated during a step
beyond what was there before it.

    OMP_NUM_THREADS=1 python benchmarks/mic_step.py
    python benchmarks/mic_step.py --model sentence-transformers/all-MiniLM-L6-v2 --device cuda --repeats 50

Without --model the encoder has the architecture of all-MiniLM-L6-v2 (6 layers, width 384) and random weights.
"""

import random
import statistics
import tempfile

import torch
from measuring import Step, median_ratio, peak_tensor_bytes, take_turns
from reporting import Table, options
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    Matryoshka2dLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hf_mic import MICLoss

BASELINE = "MatryoshkaLoss"
REG_DIMS = {1: [64], 3: [16, 64, 256], 7: [8, 16, 32, 64, 128, 192, 256]}
COLUMNS = {
    "loss": "",
    "step [s]": ".3f",
    "ratio": ".3f",
    "lowest": ".3f",
    "highest": ".3f",
    "peak [MiB]": ",.0f",
    "its ratio": ".3f",
}


def save_random_minilm(folder: str) -> None:
    """The architecture of all-MiniLM-L6-v2 with random weights, and a tokenizer of numbered words."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *(f"w{i}" for i in range(30520))])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=512
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    BertModel(config).save_pretrained(folder)


def build_losses(model: SentenceTransformer) -> dict[str, nn.Module]:
    """The losses that are compared, by name."""
    width = model.get_embedding_dimension()
    dims = [width, *(dim for dim in (256, 128, 64, 32, 16) if dim < width)]

    def inner() -> MultipleNegativesRankingLoss:
        return MultipleNegativesRankingLoss(model)

    distilled = {"distill": "similarity_kl", "distill_weight": 1.0}
    losses = {
        "MultipleNegativesRankingLoss": inner(),
        BASELINE: MatryoshkaLoss(model, inner(), dims),
        "MIC, tokens": MICLoss(model, inner(), dims),
        "MIC, pooled": MICLoss(model, inner(), dims, scope="pooled"),
        "MIC, tokens + distillation": MICLoss(model, inner(), dims, **distilled),
    }
    for count, reg_dims in REG_DIMS.items():
        losses[f"MIC, tokens, {count} regularised dims"] = MICLoss(model, inner(), dims, reg_dims=reg_dims)
    losses["Matryoshka2dLoss"] = Matryoshka2dLoss(model, inner(), dims)
    return losses


def make_columns(model: SentenceTransformer, batch_size: int, max_tokens: int) -> list[dict[str, Tensor]]:
    """Two columns of random sentences, half as long to as long as ``max_tokens`` words."""
    rng = random.Random(0)
    texts = [
        [
            " ".join(f"w{rng.randrange(30000)}" for _ in range(rng.randint(max_tokens // 2, max_tokens)))
            for _ in range(2)
        ]
        for _ in range(batch_size)
    ]
    return [model.preprocess(list(column)) for column in zip(*texts, strict=True)]


def make_step(loss: nn.Module, columns: list[dict[str, Tensor]], optimizer: torch.optim.Optimizer) -> Step:
    """One training step of a loss."""

    def step() -> None:
        value = loss([dict(column) for column in columns], None)
        if isinstance(value, dict):
            value = torch.stack(list(value.values())).sum()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)  # last, so that every step starts from the same memory

    return step


def main() -> None:
    """Measure and print the table."""
    parser = options(__doc__)
    parser.add_argument("--model", help="encoder to load; default: the architecture of MiniLM with random weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=32, help="words of the longest sentence")
    parser.add_argument("--repeats", type=int, default=5, help="rounds over all losses")
    parser.add_argument(
        "--no-memory", action="store_true", help="leave out the peak memory, which takes a slow step each"
    )
    parser.add_argument("--only", help="measure only losses whose name contains this, and the baseline")
    args = parser.parse_args()

    torch.manual_seed(0)
    if args.model:
        model = SentenceTransformer(args.model, device=args.device)
    else:
        with tempfile.TemporaryDirectory() as folder:
            save_random_minilm(folder)
            model = SentenceTransformer(modules=[Transformer(folder), Pooling(384)], device=args.device)
    columns = make_columns(model, args.batch_size, args.max_tokens)
    columns = [{k: v.to(args.device) if isinstance(v, Tensor) else v for k, v in c.items()} for c in columns]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    steps = {
        name: make_step(loss.train(), columns, optimizer)
        for name, loss in build_losses(model).items()
        if not args.only or args.only in name or name == BASELINE
    }

    tokens = [int(column["attention_mask"].sum()) for column in columns]
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{parameters:.1f} M parameters, {args.batch_size} pairs of {tokens} tokens, {args.device}\n")
    table = Table(__file__, args.output, COLUMNS, ("torch", "sentence-transformers", "transformers"))
    steps[BASELINE]()  # the optimiser's states come to life outside of the measurement
    memory = {
        name: float("nan") if args.no_memory else peak_tensor_bytes(step, args.device) for name, step in steps.items()
    }
    times = take_turns(steps, args.repeats, device=args.device)
    for name, taken in times.items():
        ratios = [value / base for value, base in zip(taken, times[BASELINE], strict=True)]
        speed = [statistics.median(taken), median_ratio(taken, times[BASELINE]), min(ratios), max(ratios)]
        table.add(name, *speed, memory[name] / 2**20, memory[name] / memory[BASELINE])


if __name__ == "__main__":
    main()
