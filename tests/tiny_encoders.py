"""Tiny sentence encoders of a real architecture, and sentences in their words."""

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
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


def build_encoder(folder: str, *, normalize: bool = False) -> SentenceTransformer:
    """An encoder around the BERT of a folder, with mean pooling."""
    modules = [Transformer(folder), Pooling(WIDTH, pooling_mode="mean")]
    return SentenceTransformer(modules=modules + ([Normalize()] if normalize else []), device="cpu")


def sentences(count: int, seed: int, longest: int = 12) -> list[str]:
    """Random sentences over the tiny vocabulary, of different lengths."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(2, longest + 1))) for _ in range(count)]
