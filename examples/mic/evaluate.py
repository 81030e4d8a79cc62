r"""Score sentence encoders at every prefix length, as float32, int8 and binary, on STS-B, Banking77 and SciFact.

One GPU, or the CPU if there is none, with data from the Hub:

    python examples/mic/evaluate.py --models sentence-transformers/all-MiniLM-L6-v2 --methods truncation

Several models share one axis. One process is enough; on several GPUs, run one for each, with a --study of its own:

    python examples/mic/evaluate.py --models outputs/mic outputs/mrl --methods mic mrl --precisions float32 int8 binary
    python examples/mic/evaluate.py --models outputs/ese --device cuda:1 --study ese

CPU smoke run on a file of pairs, 15 to 20 s on one core beside the download of the model:

    printf 'sentence1,sentence2,score\nA cat sleeps.,A cat naps.,5\nA dog runs.,A dog walks.,3\nIt rains.,He reads.,0\n' > my_pairs.csv
    python examples/mic/evaluate.py --models sentence-transformers/all-MiniLM-L6-v2 --tasks sts=my_pairs.csv --device cpu

The same as `hf-mic evaluate`, see its --help. SciFact takes longest, as its 5,183 abstracts are embedded.
"""

import sys

from hf_mic.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
