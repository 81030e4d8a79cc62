r"""A page to ask a model about an ECG, and the app of a Space (see docs/app.md); the same as `hf-evl-ecg app`.

    python examples/evl_ecg/app.py --model outputs/demo_ecg/export --teacher outputs/demo_ecg/teacher

One process serves the page, on a GPU if there is one. CPU smoke run (see train_teacher.py for the model):

    python examples/evl_ecg/app.py --model outputs/smoke_teacher --device cpu

On a Space the models are named by the variables EVL_ECG_MODEL and EVL_ECG_TEACHER.
"""

import sys

from hf_evl_ecg.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
