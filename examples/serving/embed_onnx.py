r"""Embed lines of text with an exported graph: onnxruntime and tokenizers, without torch.

    hf-mic export outputs/mic_adapt/model --dim 64 --output outputs/mic64.onnx
    printf 'Sinus rhythm.\nAtrial fibrillation.\n' | python examples/serving/embed_onnx.py outputs/mic64.onnx outputs/mic_adapt/model/tokenizer.json

prints a line of numbers for each, of length 1.
"""

import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def main(graph: str, tokenizer: str, longest: int = 256) -> None:
    """Print the embedding of each line of the standard input; texts are cut after ``longest`` tokens."""
    tokens = Tokenizer.from_file(tokenizer)
    tokens.enable_truncation(longest)
    tokens.enable_padding()
    encoded = tokens.encode_batch([line.rstrip("\n") for line in sys.stdin])
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    inputs = {
        "input_ids": np.array([text.ids for text in encoded], dtype=np.int64),
        "attention_mask": np.array([text.attention_mask for text in encoded], dtype=np.int64),
    }
    for row in session.run(["sentence_embedding"], inputs)[0]:
        print(*(f"{value:.7f}" for value in row))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
