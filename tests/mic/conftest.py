"""Tiny sentence-transformers models of real architectures, built offline; scripts in two processes."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

WORDS = [
    "the",
    "a",
    "patient",
    "heart",
    "rhythm",
    "rate",
    "is",
    "was",
    "normal",
    "sinus",
    "fast",
    "slow",
    "wide",
    "narrow",
    "complex",
    "with",
    "of",
    "and",
    "no",
    "axis",
    "left",
    "right",
    "block",
    "branch",
    "wave",
    "inverted",
    "elevated",
    "depressed",
    "segment",
    "lead",
    "anterior",
    "inferior",
    "lateral",
    "old",
    "new",
    "infarct",
    "ischemia",
]
WIDTH = 32


def tiny_tokenizer(padding_side: str = "right") -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", ":", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        padding_side=padding_side,
        model_max_length=64,
    )


def save_tiny_bert(folder, *, layers: int = 4, padding_side: str = "right") -> str:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(padding_side)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_bert_path(tmp_path_factory) -> str:
    """A BERT of 4 layers and width 32 on disk, without dropout."""
    return save_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))


@pytest.fixture
def make_model(tiny_bert_path):
    """Build a fresh encoder; the same weights each time."""

    def build(normalize: bool = False, path: str = tiny_bert_path) -> SentenceTransformer:
        transformer = Transformer(path)
        modules = [transformer, Pooling(WIDTH, pooling_mode="mean")]
        return SentenceTransformer(modules=modules + ([Normalize()] if normalize else []), device="cpu")

    return build


@pytest.fixture
def static_model() -> SentenceTransformer:
    torch.manual_seed(0)
    return SentenceTransformer(
        modules=[StaticEmbedding(tiny_tokenizer()._tokenizer, embedding_dim=WIDTH)], device="cpu"
    )


def sentences(count: int, seed: int, longest: int = 12) -> list[str]:
    """Random sentences over the tiny vocabulary, of different lengths."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(2, longest + 1))) for _ in range(count)]


@pytest.fixture
def make_sentences():
    return sentences


@pytest.fixture(scope="session")
def run_in_two_processes(repo_root):
    """Run a script with arguments in two processes that know each other, on the CPU."""

    def run(script, *arguments) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        process = subprocess.Popen(
            [*command, str(script), *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{repo_root}{os.pathsep}{repo_root / 'tests'}"},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, errors = process.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            process.terminate()  # the launcher ends its workers
            process.communicate()
            raise
        assert process.returncode == 0, errors[-4000:]

    return run
