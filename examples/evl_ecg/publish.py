r"""Publish a distilled student, or a data set of drawn ECGs, on the Hugging Face Hub; the same as `hf-evl-ecg publish`.

    hf auth login
    python examples/evl_ecg/publish.py --model outputs/student --export_dir outputs/student_export \
        --repo_id your-name/ecg-student --card model_cards/ecg_small.yaml --results model_cards/results/ecg_small.json --tag v1.0

The questions of prepare_data.py with their ECGs drawn, as parquet; image options as in training:

    python examples/evl_ecg/publish.py --data outputs/questions --repo_id your-name/ecg-questions --card my_card.md \
        --image_width 448 --image_height 224 --grid thick

Repositories are private unless --no_private is given. Needs no GPU, and one process is enough: the checks run on the CPU.
"""

import sys

from hf_evl_ecg.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
