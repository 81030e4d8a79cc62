"""A tiny checkpoint in LLaVA's own layout, and the forward pass of LLaVA's code written out by hand."""

import json

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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


def plain_tokenizer(tiny):
    """The Llama-like tokenizer of the tiny teacher without the tokens that conversion adds."""
    full = json.loads(tiny.processor.tokenizer.backend_tokenizer.to_str())
    vocab = full["model"]["vocab"]
    full["padding"] = full["truncation"] = None  # what an earlier batch left behind
    gone = {"<image>", "<pad>"}
    names = [n for n in sorted(vocab, key=vocab.get) if n not in gone]
    full["model"]["vocab"] = {n: i for i, n in enumerate(names)}
    full["added_tokens"] = [
        {**t, "id": full["model"]["vocab"][t["content"]]} for t in full["added_tokens"] if t["content"] not in gone
    ]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(full)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
