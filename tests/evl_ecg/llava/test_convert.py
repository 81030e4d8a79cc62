"""LLaVA-layout checkpoints: converted logits equal a forward pass written out by hand, or the error names what is wrong."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPConfig,
    CLIPModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from hf_evl_ecg.__main__ import main
from hf_evl_ecg.chat.collator import EVLECGCollator
from hf_evl_ecg.chat.conversations import Turn, chat_messages
from hf_evl_ecg.llava.convert import convert_llava
from hf_evl_ecg.llava.flat_tiles import FlatLlavaNextForConditionalGeneration, load_llava_next
from hf_evl_ecg.llava.layout import CheckpointKeyError, native_key
from hf_evl_ecg.models.weights import ShardWriter, checkpoint_shards, iterate_tensors
from hf_evl_ecg.qa.prompts import pulse_prompt

EDGE, PATCH = 28, 14
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]  # (width, height), as LLaVA writes them


class Source:
    """A tiny checkpoint in LLaVA's layout, its parts, and what its own code would compute."""

    def __init__(self, folder, tokenizer, dtype=torch.float32, merge="flat", with_vision=False):
        torch.manual_seed(0)
        self.folder, self.merge = folder / "llava", merge
        clip = CLIPModel(CLIPConfig(
            vision_config={"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
                           "image_size": EDGE, "patch_size": PATCH},
            text_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
                         "vocab_size": 10},
            projection_dim=8,
        ))  # fmt: skip
        clip.save_pretrained(folder / "clip")
        self.vision = clip.vision_model.eval()
        self.llama = LlamaForCausalLM(LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, rope_theta=5000.0, rms_norm_eps=1e-5,
        )).eval()  # fmt: skip
        self.projector = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.GELU(), torch.nn.Linear(32, 32))
        self.newline = torch.randn(32)
        with torch.no_grad():
            for module in (self.vision, self.llama, self.projector):
                for parameter in module.parameters():
                    if parameter.ndim > 1:
                        parameter.normal_(0, 0.5 / parameter.shape[-1] ** 0.5)
        clip.save_pretrained(folder / "clip")
        state = dict(self.llama.state_dict())
        state |= {f"model.mm_projector.{n}": t for n, t in self.projector.state_dict().items()}
        state["model.image_newline"] = self.newline
        state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        if with_vision:
            vision = self.vision.state_dict()
            state |= {f"model.vision_tower.vision_tower.vision_model.{n}": t for n, t in vision.items()}
        self.state = {n: t.detach().clone().to(dtype) for n, t in state.items()}
        self.config = json.loads(self.llama.config.to_json_string()) | {
            "model_type": "llava_llama", "architectures": ["LlavaLlamaForCausalLM"], "mm_hidden_size": 24,
            "mm_vision_tower": str(folder / "clip"), "mm_projector_type": "mlp2x_gelu", "mm_vision_select_layer": -2,
            "mm_vision_select_feature": "patch", "mm_patch_merge_type": merge, "image_aspect_ratio": "anyres",
            "image_grid_pinpoints": PINPOINTS, "torch_dtype": str(dtype).removeprefix("torch."), "rope_theta": 5000.0,
            "tune_mm_mlp_adapter": False, "mm_use_im_start_end": False,
        }  # fmt: skip
        self.folder.mkdir()
        tokenizer.save_pretrained(self.folder)
        self.write()

    def write(self, kind="safetensors"):
        (self.folder / "config.json").write_text(json.dumps(self.config))
        if kind == "bin":
            names = sorted(self.state)
            files = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]}
            for file, own in files.items():
                torch.save({n: self.state[n] for n in own}, self.folder / file)
            weight_map = {n: file for file, own in files.items() for n in own}
            (self.folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
            (self.folder / "model.safetensors").unlink(missing_ok=True)
        else:
            save_file({n: t.contiguous() for n, t in self.state.items()}, self.folder / "model.safetensors")

    @torch.no_grad()
    def logits(self, input_ids, tiles, image_size, image_id):
        """The forward pass of LLaVA's code for one image: towers, projector, packing and text model one after another."""
        hidden = self.vision(tiles, output_hidden_states=True).hidden_states[-2][:, 1:]
        features = self.projector(hidden)  # (tiles, 4, 32)
        packed = features.reshape(-1, 32) if self.merge == "flat" else self.unpadded(features, image_size)
        at = (input_ids == image_id).nonzero().flatten()
        assert len(at) == len(packed), "the processor must leave room for every image token"
        embedded = self.llama.get_input_embeddings()(input_ids.masked_fill(input_ids == image_id, 0))
        embedded[at] = packed
        return self.llama(inputs_embeds=embedded[None]).logits[0]

    def unpadded(self, features, image_size):
        """Overview, then every row of the tiled picture without padding, a newline behind each."""
        height, width = image_size
        grid = {(40, 56): (2, 2), (30, 80): (1, 3)}[image_size]
        side = EDGE // PATCH
        picture = torch.zeros(grid[0] * side, grid[1] * side, 32)
        for i, tile in enumerate(features[1:]):
            row, column = divmod(i, grid[1])
            picture[row * side : (row + 1) * side, column * side : (column + 1) * side] = tile.view(side, side, 32)
        rows, columns = picture.shape[:2]
        if width / height > columns / rows:
            pad = (rows - int(round(height * columns / width, 7))) // 2
            picture = picture[pad : rows - pad]
        else:
            pad = (columns - int(round(width * rows / height, 7))) // 2
            picture = picture[:, pad : columns - pad]
        lines = [torch.cat([line, self.newline[None]]) for line in picture]
        return torch.cat([features[0], *lines])


@pytest.fixture
def tokenizer(tiny_vlm):
    """The Llama-like tokenizer of the tiny teacher without the tokens that conversion adds."""
    full = json.loads(tiny_vlm("llava_next").processor.tokenizer.backend_tokenizer.to_str())
    vocab = full["model"]["vocab"]
    full["padding"] = full["truncation"] = None  # what an earlier batch left behind
    gone = {"<image>", "<pad>"}
    names = [n for n in sorted(vocab, key=vocab.get) if n not in gone]
    full["model"]["vocab"] = {n: i for i, n in enumerate(names)}
    full["added_tokens"] = [
        {**t, "id": full["model"]["vocab"][t["content"]]} for t in full["added_tokens"] if t["content"] not in gone
    ]
    from tokenizers import Tokenizer

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(full)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def picture(height, width):
    return Image.fromarray(np.random.default_rng(height).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(40, 56), (30, 80)])
@pytest.mark.parametrize("merge", ["flat", "spatial_unpad"])
def test_converted_logits_equal_the_sources(tmp_path, tokenizer, merge, size):
    source = Source(tmp_path, tokenizer, merge=merge, with_vision=merge == "flat")
    if merge == "flat":
        source.write("bin")
    folder = convert_llava(source.folder, tmp_path / "native", max_shard_bytes=20_000)
    model, processor = load_llava_next(folder)
    assert isinstance(model, FlatLlavaNextForConditionalGeneration) == (merge == "flat")
    messages = chat_messages([Turn("What is the rhythm?", "sinus rhythm")])
    text = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
    assert text == pulse_prompt("What is the rhythm?")
    inputs = processor(images=[picture(*size)], text=[text], return_tensors="pt")
    tiles = {(40, 56): 5, (30, 80): 4}[size]
    ids = inputs["input_ids"][0]
    if merge == "flat":
        assert (ids == processor.image_token_id).sum() == tiles * 4
    expected = source.logits(ids, inputs["pixel_values"][0][:tiles], size, processor.image_token_id)
    found = model(**inputs).logits[0, :, : len(tokenizer)]
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_what_is_written(tmp_path, tokenizer, capsys):
    source = Source(tmp_path, tokenizer, dtype=torch.float16, merge="spatial_unpad")
    folder = tmp_path / "native"
    assert main(["convert", str(source.folder), str(folder)]) == 0
    assert capsys.readouterr().out.strip() == f"Written: {folder}"
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert type(model).__name__ == "LlavaNextForConditionalGeneration"
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    n = len(tokenizer)
    assert (processor.image_token_id, processor.tokenizer.pad_token_id) == (n, n + 1)
    assert model.config.text_config.vocab_size == -(-(n + 2) // 64) * 64
    assert model.config.image_grid_pinpoints == [[h, w] for w, h in PINPOINTS]
    assert model.config.text_config.rope_parameters["rope_theta"] == 5000.0
    assert model.config.text_config.rms_norm_eps == 1e-5
    assert model.generation_config.do_sample is False
    assert model.generation_config.max_new_tokens == 1024
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    embedded = model.get_input_embeddings().weight
    torch.testing.assert_close(embedded[:n], source.state["model.embed_tokens.weight"])
    logits = model.lm_head(torch.randn(50, 32, dtype=torch.float16))
    assert (logits[:, :n].max(1).values >= logits[:, n:].max(1).values - 2e-3).all()
    assert not list(folder.glob("*.bin"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip", "llava", "native"]
    with pytest.raises(ValueError, match="exists"):
        convert_llava(source.folder, folder)
    model.generate(**processor(images=[picture(40, 56)], text=["<image>"], return_tensors="pt"), max_new_tokens=2)


def test_the_collator_learns_the_answers_of_the_template(tmp_path, tokenizer, ecg_examples):
    source = Source(tmp_path, tokenizer)
    _, processor = load_llava_next(convert_llava(source.folder, tmp_path / "native"))
    batch = EVLECGCollator(processor)(ecg_examples)
    labels = batch["labels"][1]
    decoded = processor.tokenizer.decode(labels[labels != -100])
    assert decoded.replace(" ", "") == "atrialfibrillation</s>"


def test_wrong_checkpoints_are_named_and_leave_nothing_behind(tmp_path, tokenizer):
    source = Source(tmp_path, tokenizer)
    good = dict(source.state)
    wrong = {
        r"'model.mm_projector.4.weight'": {**good, "model.mm_projector.4.weight": torch.ones(2)},
        r"model.language_model.norm.weight is missing": {n: t for n, t in good.items() if n != "model.norm.weight"},
        r"multi_modal_projector.linear_1.bias \(3,\)": {**good, "model.mm_projector.0.bias": torch.ones(3)},
    }
    for message, state in wrong.items():
        source.state = state
        source.write()
        with pytest.raises(CheckpointKeyError, match=message):
            convert_llava(source.folder, tmp_path / "native")
    source.state = good
    for name, value in (
        ("mm_projector_type", "linear"),
        ("mm_patch_merge_type", "spatial"),
        ("image_aspect_ratio", "pad"),
    ):
        original, source.config[name] = source.config[name], value
        source.write()
        with pytest.raises(ValueError, match=f"{name}='{value}': must be one of"):
            convert_llava(source.folder, tmp_path / "native")
        source.config[name] = original
    source.write()
    (source.folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        convert_llava(source.folder, tmp_path / "native")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip", "llava"]
    with pytest.raises(CheckpointKeyError, match="unknown weight 'x'"):
        native_key("x")
    assert native_key("model.layers.0.self_attn.rotary_emb.inv_freq") is None


def test_shards(tmp_path):
    tensors = {f"w{i}": torch.full((100,), float(i)) for i in range(5)}
    for limit, count in ((10**6, 1), (900, 3), (1, 5)):
        folder = tmp_path / str(limit)
        folder.mkdir()
        writer = ShardWriter(folder, limit)
        for name, tensor in tensors.items():
            writer.add(name, tensor)
        writer.close()
        assert len(checkpoint_shards(folder)) == count
        found = dict(iterate_tensors(folder))
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
        assert all(load_file(path) for path in checkpoint_shards(folder))
        with safe_open(checkpoint_shards(folder)[0], "pt") as file:
            assert file.metadata() == {"format": "pt"}
    index = tmp_path / "900" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w0": "../1/model.safetensors"}}))
    with pytest.raises(ValueError, match="no files in"):
        checkpoint_shards(tmp_path / "900")
