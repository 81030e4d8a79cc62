r"""Let a teacher write the answers of the training questions, for distill.py --method seqkd; the same as `hf-evl-ecg answer`.

One GPU:

    python examples/evl_ecg/write_answers.py --teacher outputs/pulse_native --data outputs/questions \
        --output_dir outputs/taught_questions --batch_size 32 --num_workers 8 --teacher_dtype bfloat16 --device cuda

CPU smoke run on three records, half a minute (see train_teacher.py for the teacher and the questions):

    python examples/evl_ecg/write_answers.py --teacher outputs/smoke_teacher --data outputs/smoke_questions --image_width 448 \
        --image_height 224 --grid thick --train_records 3 --max_new_tokens 8 --output_dir outputs/smoke_taught

Started again after a kill it goes on where it stopped.
"""

import sys

from hf_evl_ecg.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["answer", *sys.argv[1:]]))
