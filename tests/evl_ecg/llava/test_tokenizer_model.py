"""Checkpoints with ``tokenizer.model`` alone, as LLaVA's are: tokens of a chat are those of LLaVA's own code."""

import json
import shutil

import pytest
from llava_source import Source
from tiny_vlms import CORPUS

from hf_evl_ecg.chat.conversations import Turn, chat_messages
from hf_evl_ecg.llava import convert
from hf_evl_ecg.llava.convert import convert_llava
from hf_evl_ecg.llava.layout import line_behind_image
from hf_evl_ecg.models.loading import load_processor
from hf_evl_ecg.qa.prompts import pulse_prompt

SIZE = 420


@pytest.fixture(scope="module")
def spm(tmp_path_factory):
    """A tokenizer.model with the settings of Llama's."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    prefix = tmp_path_factory.mktemp("spm") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_prefix=str(prefix), vocab_size=SIZE, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        character_coverage=1.0, pad_id=-1, minloglevel=2,
    )  # fmt: skip
    return prefix.with_suffix(".model")


class Files:
    """What `Source` needs of a tokenizer."""

    def __init__(self, model, legacy):
        self.model, self.legacy = model, legacy

    def __len__(self):
        return SIZE

    def save_pretrained(self, folder):
        shutil.copy(self.model, folder / "tokenizer.model")
        settings = {"tokenizer_class": "LlamaTokenizer", "legacy": self.legacy, "add_bos_token": True}
        settings |= {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def llava_ids(model, legacy, prompt, image_id):
    """`tokenizer_image_token` of LLaVA with the slow tokenizer of transformers 4: the parts around images one by one."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(model.read_bytes())
    proto.normalizer_spec.add_dummy_prefix = legacy
    encode = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString()).encode

    def words(text):
        if legacy or not text.startswith(("▁", " ")):
            return encode(text)
        return encode("<unk>" + text)[len(encode("<unk>")) :]  # or the blank in front would be lost

    ids = [1]
    for number, part in enumerate(prompt.split("<image>")):
        ids += [image_id] * (number > 0)
        for turn, text in enumerate((part if legacy else "▁" + part).split("</s>")):
            ids += [2] * (turn > 0) + words(text)
    return ids


@pytest.mark.parametrize("legacy", [True, False])
def test_tokens_are_those_of_llava(spm, tmp_path, legacy):
    source = Source(tmp_path, Files(spm, legacy))
    processor = load_processor(convert_llava(source.folder, tmp_path / "native"))
    assert line_behind_image(processor.tokenizer) == ("\n" if legacy else " \n")
    turns = [Turn("Is there an axis deviation?", "no"), Turn("And the heart rate?", "72 beats per minute")]
    prompt = pulse_prompt(turns[0].question) + " no</s>USER: And the heart rate? ASSISTANT:"
    for messages, expected in (
        (chat_messages(turns[:1])[:1], pulse_prompt(turns[0].question)),
        (chat_messages(turns)[:3], prompt),
    ):
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        found = processor.tokenizer(text)["input_ids"]
        assert found == llava_ids(spm, legacy, expected, processor.image_token_id)
    pieces = processor.tokenizer.convert_ids_to_tokens(found)
    at = pieces.index("<image>")
    assert pieces[at + 1 : at + 3] == ["▁", "<0x0A>"]


def test_a_blank_of_the_template_is_right_for_both(spm, tmp_path):
    """The same ids, whether the tokenizer begins a word behind an image by itself or not."""
    found = []
    for legacy in (True, False):
        folder = tmp_path / str(legacy)
        folder.mkdir()
        Files(spm, legacy).save_pretrained(folder)
        tokenizer = convert.read_tokenizer(folder, SIZE)
        found.append(tokenizer("USER: <image> \nIs there an axis deviation? ASSISTANT:")["input_ids"])
    assert found[0] == found[1]


@pytest.mark.parametrize("missing", ["sentencepiece", "protobuf"])
def test_what_is_missing_is_said_before_the_weights_are_read(tmp_path, monkeypatch, missing):
    (tmp_path / "model").write_bytes(b"no model")
    source = Source(tmp_path, Files(tmp_path / "model", True))
    (source.folder / "model.safetensors").unlink()
    monkeypatch.setattr(convert, f"is_{missing}_available", lambda: False)
    with pytest.raises(
        ValueError, match=rf"tokenizer.model: is read with .*; missing: {missing} \(pip install {missing}"
    ):
        convert_llava(source.folder, tmp_path / "native")


def test_weights_are_fetched_last(tmp_path, monkeypatch):
    """From the Hub, settings and tokenizer come first: a checkpoint that is refused costs no 14 GB."""
    asked = []

    def download(name, allow_patterns):
        asked.append(allow_patterns)
        return str(tmp_path / "llava")

    Source(tmp_path, Files(__file__, True))
    for name in ("sentencepiece", "protobuf"):
        monkeypatch.setattr(convert, f"is_{name}_available", lambda: False)
    monkeypatch.setattr(convert, "snapshot_download", download)
    with pytest.raises(ValueError, match="missing: sentencepiece, protobuf"):
        convert_llava("lab/pulse", tmp_path / "native")
    assert asked
    assert not [pattern for patterns in asked for pattern in patterns if "safetensors" in pattern or ".bin" in pattern]
