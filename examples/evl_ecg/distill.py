r"""Distil a vision-language teacher into a student of another architecture, tokenizer and size; the same as `hf-evl-ecg distil`.

One GPU, 7B -> 2B, online teacher:

    python examples/evl_ecg/distill.py --teacher outputs/pulse_native --student Qwen/Qwen2-VL-2B-Instruct --data outputs/questions \
        --output_dir outputs/student --per_device_train_batch_size 4 --gradient_accumulation_steps 8 --num_train_epochs 1 \
        --learning_rate 1e-4 --lora_rank 64 --bf16 --gradient_checkpointing --dataloader_num_workers 8

Several GPUs; the same from a cache that cache_teacher.py wrote with the same options:

    accelerate launch --num_processes 8 examples/evl_ecg/distill.py examples/configs/ecg_distill.yaml
    accelerate launch --num_processes 8 examples/evl_ecg/distill.py examples/configs/ecg_distill.yaml --teacher_cache outputs/cache

The baseline that the distilled student is compared with, the same student on the same questions without a teacher:

    python examples/evl_ecg/distill.py examples/configs/ecg_distill.yaml --method sft --output_dir outputs/student_sft

CPU smoke run, a minute: --multi_gpu starts two processes (--cpu would need MPI), --use_cpu keeps them off GPUs (see train_teacher.py
for questions and teacher; the student likewise with --kind student):

    accelerate launch --multi_gpu --num_processes 2 examples/evl_ecg/distill.py --teacher outputs/smoke_teacher \
        --student outputs/smoke_student_init --data outputs/smoke_questions --image_width 448 --image_height 224 --grid thick \
        --max_steps 3 --per_device_train_batch_size 2 --use_cpu --report_to none --output_dir outputs/smoke_student

The log shows each weighted term of the loss. OUTPUT_DIR holds the student (or its LoRA adapter) and its processor.
"""

import sys

from hf_evl_ecg.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["distil", *sys.argv[1:]]))
