"""Score sentence encoders at every prefix length, as float32, int8 and binary, on STS-B, Banking77 and SciFact.

On a GPU if there is one, with data from the Hub:

    python examples/mic/evaluate.py --models sentence-transformers/all-MiniLM-L6-v2 --methods truncation

Several models share one axis; run one process for each of several GPUs with --device cuda:1 and a --study of its own:

    python examples/mic/evaluate.py --models outputs/mic outputs/mrl --methods mic mrl --precisions float32 int8 binary

CPU smoke run on pairs of your own (columns sentence1, sentence2, score):

    python examples/mic/evaluate.py --models sentence-transformers/all-MiniLM-L6-v2 --tasks sts=my_pairs.csv --device cpu

The same as `hf-mic evaluate`, whose --help says the rest. SciFact takes longest, as its 5,183 abstracts are embedded.
"""

import sys

from hf_mic.commands.evaluate import main, parse

if __name__ == "__main__":
    main(*parse(sys.argv[1:]))
