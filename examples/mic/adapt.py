r"""Make existing embeddings truncatable: fit a map on the vectors, write the adapted index and the adapted model.

Vectors in a file, from any encoder or an API (400 steps, 10 to 15 s on one CPU core for 384 dimensions; one process is enough, and a
GPU is not used):

    python examples/mic/adapt.py --embeddings index.npy --output_dim 32

A sentence-transformers model and a file of texts like those it will see, one per line; they are embedded on one GPU if there is one:

    python examples/mic/adapt.py --model sentence-transformers/all-MiniLM-L6-v2 --texts sentences.txt

CPU smoke run, 15 to 20 s on one core beside the download of the model:

    printf 'Sentence number %d.\n' $(seq 300) > sentences.txt
    CUDA_VISIBLE_DEVICES= python examples/mic/adapt.py --model sentence-transformers/all-MiniLM-L6-v2 --texts sentences.txt \
        --steps 20 --batch_size 128 --pool_size 256

The same as `hf-mic adapt`, see its --help. What to expect on all-MiniLM-L6-v2, against truncation and PCA:
model_cards/results/map_search.md.
"""

import sys

from hf_mic.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["adapt", *sys.argv[1:]]))
