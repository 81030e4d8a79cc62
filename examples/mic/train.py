r"""Fine-tune a sentence encoder so that its embeddings can be truncated (MIC, arXiv 2605.29987).

One GPU, question-answer pairs from the Hub:

    python examples/mic/train.py examples/configs/mic_pairs.yaml

Several GPUs, batch statistics and in-batch negatives over all of them:

    accelerate launch --num_processes 4 examples/mic/train.py examples/configs/mic_pairs.yaml --gather_across_devices

CPU smoke run on a file with the columns anchor and positive (some seconds beside the download of the model):

    python examples/mic/train.py --model sentence-transformers/all-MiniLM-L6-v2 --data my_pairs.csv --output_dir outputs/smoke \
        --max_steps 5 --per_device_train_batch_size 8 --use_cpu --report_to none

The same as `hf-mic train`, whose --help says the rest. The saved model needs only sentence-transformers:
SentenceTransformer(output_dir, truncate_dim=32).
"""

import sys

from hf_mic.commands.train import main, parse

if __name__ == "__main__":
    main(*parse(sys.argv[1:]))
