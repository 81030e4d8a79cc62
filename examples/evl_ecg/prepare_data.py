r"""Turn ECG records with labels into one dataset of questions with splits; the same as `hf-evl-ecg prepare`.

One's own folder of WFDB records with a CSV (columns: record; labels, patient, split, report, heart_rate … where known):

    python examples/evl_ecg/prepare_data.py --folder my_ecgs --table my_labels.csv --output_dir outputs/questions

Everything at hand, LUDB by subject, PTB-XL by fold, the Challenge by record, and simulated records for training only:

    python examples/evl_ecg/prepare_data.py --ptbxl data/ptb-xl --ludb data/ludb --cinc data/cinc2021/training \
        --simulated_train 500 --output_dir outputs/questions

CPU smoke run, without any file, seconds; one record of each of nine classes for training, and one for the test:

    python examples/evl_ecg/prepare_data.py --simulated_train 1 --simulated_test 1 --output_dir outputs/smoke_questions

Needs no GPU, and one process is enough. --help says what each option does; all can stand in a YAML file, given first.
"""

import sys

from hf_evl_ecg.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
