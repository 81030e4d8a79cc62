r"""Make existing embeddings truncatable: fit a map on the vectors, write the adapted index and the adapted model.

Vectors in a file, from any encoder or an API (400 steps, 6 to 10 s on one CPU core for 384 dimensions; a GPU is not used, and more
processes do not help):

    python examples/mic/adapt.py --embeddings index.npy --output_dim 32

A sentence-transformers model and texts like those it will see; the texts are embedded on a GPU if there is one:

    python examples/mic/adapt.py --model sentence-transformers/all-MiniLM-L6-v2 --texts sentences.txt

CPU smoke run, some seconds:

    python examples/mic/adapt.py --model sentence-transformers/all-MiniLM-L6-v2 --texts sentences.txt \
        --max_texts 500 --steps 20 --pool_size 256

The same as `hf-mic adapt`, whose --help says the rest. What to expect on all-MiniLM-L6-v2, against truncation and PCA:
model_cards/results/mic_adapt.md.
"""

import sys

from hf_mic.commands.adapt import main, parse

if __name__ == "__main__":
    main(*parse(sys.argv[1:]))
