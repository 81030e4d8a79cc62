r"""Ask models the same questions about the same ECGs and score their answers; the same as `hf-evl-ecg evaluate`.

One GPU:

    python examples/evl_ecg/evaluate.py --models teacher=outputs/teacher sft=outputs/student_sft evl_ecg=outputs/student \
        --data outputs/questions --batch_size 32 --num_workers 8 --dtype bfloat16 --device cuda --output_dir outputs/scores

Several GPUs: one process per model, then all of them once more, which only reads the answers that are there:

    CUDA_VISIBLE_DEVICES=0 python examples/evl_ecg/evaluate.py ... --models teacher=outputs/teacher &
    CUDA_VISIBLE_DEVICES=1 python examples/evl_ecg/evaluate.py ... --models evl_ecg=outputs/student & wait

CPU smoke run on three records, a minute (see train_teacher.py for model and questions):

    python examples/evl_ecg/evaluate.py --models teacher=outputs/smoke_teacher --data outputs/smoke_questions --image_width 448 \
        --image_height 224 --grid thick --max_new_tokens 16 --records 3 --output_dir outputs/smoke_scores

Results: OUTPUT_DIR/ecg_scores.json, .md and .png, each value with a 95 % bootstrap interval over records and the level of chance.
"""

import sys

from hf_evl_ecg.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
