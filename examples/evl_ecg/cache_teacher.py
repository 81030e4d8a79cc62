r"""Run a teacher over the training questions once, for distill.py --teacher_cache; the same as `hf-evl-ecg cache`.

One GPU:

    python examples/evl_ecg/cache_teacher.py --teacher outputs/pulse_native --data outputs/questions --output_dir outputs/cache \
        --batch_size 8 --num_workers 8 --visual_pool 4

Several GPUs; every process writes its own shards into one folder:

    accelerate launch --num_processes 8 examples/evl_ecg/cache_teacher.py --teacher outputs/pulse_native \
        --data outputs/questions --output_dir outputs/cache

CPU smoke run on three records, half a minute (see train_teacher.py for the teacher and the questions):

    python examples/evl_ecg/cache_teacher.py --teacher outputs/smoke_teacher --data outputs/smoke_questions --image_width 448 \
        --image_height 224 --grid thick --train_records 3 --output_dir outputs/smoke_cache

Started again after a kill it goes on where it stopped.
"""

import sys

from hf_evl_ecg.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["cache", *sys.argv[1:]]))
