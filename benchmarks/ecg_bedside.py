"""What a 2B student costs at the bedside: memory, seconds to the first word and words per second on a CPU, by family and precision.

Models have the shapes of released ones and random weights, which cost the same: SmolVLM2-2.2B (SigLIP so400m, 384-px tiles of 81
tokens, SmolLM2-1.7B), Qwen2-VL-2B (28-px squares, Qwen2-1.5B), Granite-Vision-2B (384-px tiles of 729 tokens, Granite-3.1-2B). One ECG
page and a question of 32 tokens go in; the first token comes out, then as many more as --tokens says. Budgets are what processors can be told
to make of a page. Each row is measured in a process of its own; weights are made and rounded layer by layer, as they would be loaded,
so that the peak is what asking takes. Seconds are of the clock on the wall and depend on the CPU's instructions: see `flags` in the json.

    python benchmarks/ecg_bedside.py --families smolvlm2 --precisions float32 int8 --output bedside.json

Takes some minutes per row on two cores; rows that the json of --output holds from this machine are not measured again.
"""

import json
import math
import resource
import subprocess
import sys
import time
from typing import Any

import torch
from reporting import Table, options
from torch import Tensor, nn
from transformers.generation import BaseStreamer

SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
PRECISIONS = ("float32", "bfloat16", "int8", "int4")
BUDGETS = {
    "smolvlm2": (1, 5, 17),
    "qwen2_vl": (256, 576, 1200),
    "granite_vision": (1, 5),
}  # tiles; visual tokens; tiles
QUESTION_TOKENS = 32
COLUMNS = {
    "family": "",
    "budget": ",",
    "visual tokens": ",",
    "precision": "",
    "parameters": ",",
    "built [MB]": ",.0f",
    "peak [MB]": ",.0f",
    "first token [s]": ".1f",
    "tokens/s": ".2f",
}


def smolvlm2(tiles: int) -> tuple[Any, dict[str, Tensor], int]:
    """Configuration, inputs and number of visual tokens of a page cut into so many tiles."""
    from transformers import Idefics3Config

    text = {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "vocab_size": 49280,
    }
    text |= {"num_attention_heads": 32, "num_key_value_heads": 32, "pad_token_id": 2}
    vision = {**SIGLIP, "image_size": 384, "patch_size": 14}
    config = Idefics3Config(
        vision_config=vision, text_config=text, scale_factor=3, image_token_id=49190, pad_token_id=2
    )
    visual = 81 * tiles
    pixels = torch.randn(1, tiles, 3, 384, 384)
    return config, {"input_ids": prompt(visual, 49190), "pixel_values": pixels}, visual


def qwen2_vl(visual: int) -> tuple[Any, dict[str, Tensor], int]:
    """The same of a page of so many visual tokens, each of 28 x 28 px."""
    from transformers import Qwen2VLConfig

    text = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
    text |= {"num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "patch_size": 14}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    high = 2 * round(math.sqrt(visual * 0.75))  # a page is wider than high
    wide = 2 * round(2 * visual / high)
    visual = high * wide // 4
    pixels = torch.randn(high * wide, 3 * 2 * 14 * 14)
    inputs = {"input_ids": prompt(visual, config.image_token_id), "pixel_values": pixels}
    types = (inputs["input_ids"] == config.image_token_id).long()
    return config, {**inputs, "image_grid_thw": torch.tensor([[1, high, wide]]), "mm_token_type_ids": types}, visual


def granite_vision(tiles: int) -> tuple[Any, dict[str, Tensor], int]:
    """The same of a page cut into so many tiles, one of them the whole page; features of four layers of the tower."""
    from transformers import LlavaNextConfig

    text = {
        "model_type": "granite",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 40,
        "vocab_size": 49156,
    }
    text |= {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}
    vision = {"model_type": "siglip_vision_model", **SIGLIP, "image_size": 384, "patch_size": 14}
    side = math.isqrt(tiles - 1) if tiles > 1 else 1
    pinpoints = [[384 * side, 384 * side]]
    config = LlavaNextConfig(
        text_config=text, vision_config=vision, image_token_id=49155, image_grid_pinpoints=pinpoints,
        vision_feature_layer=[-24, -20, -12, -1], vision_feature_select_strategy="full", tie_word_embeddings=True,
    )  # fmt: skip
    size, patches = 384 * side, 27 * side
    visual = 27 * 27 + patches * (patches + 1)
    pixels = torch.randn(1, 1 + side * side, 3, 384, 384)
    return (
        config,
        {"input_ids": prompt(visual, 49155), "pixel_values": pixels, "image_sizes": torch.tensor([[size, size]])},
        visual,
    )


FAMILIES = {"smolvlm2": smolvlm2, "qwen2_vl": qwen2_vl, "granite_vision": granite_vision}


def prompt(visual: int, image_token: int) -> Tensor:
    """Tokens of a page, then of a question."""
    return torch.tensor([[image_token] * visual + list(range(100, 100 + QUESTION_TOKENS))])


def build(config: Any, precision: str) -> nn.Module:
    """A model of random weights; each layer is made and rounded before the next is, as a file would be read."""
    from transformers import AutoModelForImageTextToText

    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    head = model.get_output_embeddings()
    for name, module in list(model.named_modules()):
        if not any(True for _ in module.parameters(recurse=False)) or module is head:
            continue
        module.to_empty(device="cpu", recurse=False)
        with torch.no_grad():
            for key, parameter in module.named_parameters(recurse=False):
                parameter.fill_(1.0) if "norm" in name and key == "weight" else parameter.normal_(0, 0.02)
        if isinstance(module, nn.Linear) and precision in ("int8", "int4"):
            replace(model, name, module, precision)
    if head.weight.is_meta:
        if config.get_text_config().tie_word_embeddings or config.tie_word_embeddings:
            head.weight = model.get_input_embeddings().weight
        else:
            head.to_empty(device="cpu")
            nn.init.normal_(head.weight, 0, 0.02)
    for module in model.modules():  # of buffers, such as rotary frequencies, a model makes its own values
        for key, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                setattr(module, key, torch.zeros_like(buffer, device="cpu"))
        if hasattr(module, "inv_freq"):
            dim = 2 * module.inv_freq.shape[0]
            module.inv_freq = 1.0 / (10_000.0 ** (torch.arange(0, dim, 2).float() / dim))
    return model.eval()


def replace(model: nn.Module, name: str, layer: nn.Linear, precision: str) -> None:
    """Put the layer in fewer bits in its place, as hf-evl-ecg quantize does."""
    if precision == "int8":
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(layer, Int8WeightOnlyConfig())
        return
    import bitsandbytes as bnb

    packed = bnb.nn.Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=torch.float32, quant_type="nf4"
    )
    packed.load_state_dict(layer.state_dict())
    parent, _, key = name.rpartition(".")
    setattr(model.get_submodule(parent), key, packed.to("cpu"))


class _Clock(BaseStreamer):
    """When each new token came; the prompt, which comes first, is passed over."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._prompt = True

    def put(self, value: Tensor) -> None:
        """Note the time of a token."""
        if not self._prompt:
            self.times.append(time.perf_counter())
        self._prompt = False

    def end(self) -> None:
        """Nothing follows."""


def measure(family: str, budget: int, precision: str, tokens: int) -> list[Any]:
    """Cells of one row."""
    config, inputs, visual = FAMILIES[family](budget)
    model = build(config, precision)
    if precision == "bfloat16":
        inputs = {name: value.bfloat16() if value.is_floating_point() else value for name, value in inputs.items()}
    weights = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = _Clock()
    with torch.inference_mode():
        started = time.perf_counter()
        made = model.generate(
            **inputs, max_new_tokens=1 + tokens, min_new_tokens=1 + tokens, do_sample=False, streamer=clock
        )
    assert made.shape[1] == inputs["input_ids"].shape[1] + 1 + tokens
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    speed = [clock.times[0] - started, tokens / (clock.times[-1] - clock.times[0])]
    return [family, budget, visual, precision, parameters(config), weights / 1e3, peak / 1e3, *speed]


def parameters(config: Any) -> int:
    """Weights of a configuration, of which none is made."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config).num_parameters()


def main() -> None:
    """Measure what is not in the json yet, row by row, and print the table."""
    parser = options(__doc__)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--tokens", type=int, default=8, help="Tokens after the first.")
    parser.add_argument(
        "--row", nargs=3, metavar=("FAMILY", "BUDGET", "PRECISION"), help="Measure one row in this process."
    )
    args = parser.parse_args()
    if args.row:
        print(json.dumps(measure(args.row[0], int(args.row[1]), args.row[2], args.tokens)))
        return
    libraries = ("torch", "transformers", "torchao", "bitsandbytes")
    table = Table(__file__, args.output, COLUMNS, libraries, resume=True)
    known = {(row["family"], row["budget"], row["precision"]) for row in table.rows}
    for family in args.families:
        for precision in args.precisions:
            for budget in BUDGETS[family]:
                if (family, budget, precision) in known:
                    continue
                words = ["--row", family, str(budget), precision, "--tokens", str(args.tokens)]
                done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
                if done.returncode:
                    said = done.stderr.strip().splitlines()[-1][:90]
                    print(f"{family}, {budget}, {precision} failed: {said}", file=sys.stderr, flush=True)
                    continue
                table.add(*json.loads(done.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
