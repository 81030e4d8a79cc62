"""Tiny sentence-transformers models of real architectures, built offline; scripts in two processes."""

import os
import subprocess
import sys

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tiny_encoders import WIDTH, build_encoder, sentences, tiny_tokenizer


@pytest.fixture
def make_model(tiny_bert_path):
    """Build a fresh encoder; the same weights each time."""

    def build(normalize: bool = False, path: str = tiny_bert_path) -> SentenceTransformer:
        return build_encoder(path, normalize=normalize)

    return build


@pytest.fixture
def static_model() -> SentenceTransformer:
    torch.manual_seed(0)
    return SentenceTransformer(
        modules=[StaticEmbedding(tiny_tokenizer()._tokenizer, embedding_dim=WIDTH)], device="cpu"
    )


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
