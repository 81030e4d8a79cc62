r"""Fine-tune a sentence encoder so that its embeddings can be truncated (MIC, arXiv 2605.29987).

One GPU, question-answer pairs from the Hub:

    python examples/mic/train.py examples/configs/mic_pairs.yaml

Several GPUs, batch statistics and in-batch negatives over all of them:

    accelerate launch --num_processes 4 examples/mic/train.py examples/configs/mic_pairs.yaml --gather_across_devices

CPU smoke run on a file with the columns anchor and positive, 15 to 20 s on one core beside the download of the model:

    printf 'Question %d?,Answer %d.\n' $(seq 80) | sed '1i anchor,positive' > my_pairs.csv
    python examples/mic/train.py --model sentence-transformers/all-MiniLM-L6-v2 --data my_pairs.csv --output_dir outputs/smoke \
        --max_steps 5 --per_device_train_batch_size 8 --use_cpu --report_to none

The same as `hf-mic train`, see its --help. The saved model needs only sentence-transformers:
SentenceTransformer(output_dir, truncate_dim=32).
"""

import sys

from hf_mic.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
