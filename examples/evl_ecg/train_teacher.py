r"""Fine-tune a vision-language model on questions about ECGs: a teacher, or a baseline; the same as `hf-evl-ecg teach`.

One GPU:

    python examples/evl_ecg/train_teacher.py --model llava-hf/llava-v1.6-vicuna-7b-hf --data outputs/questions --lora_rank 64 \
        --output_dir outputs/teacher --per_device_train_batch_size 8 --gradient_accumulation_steps 4 --num_train_epochs 1 \
        --learning_rate 1e-4 --bf16 --gradient_checkpointing --dataloader_num_workers 8

Several GPUs:

    accelerate launch --num_processes 8 examples/evl_ecg/train_teacher.py examples/configs/ecg_teacher.yaml

CPU smoke run, a minute (studies/evl_ecg/small_models.py builds a model with random weights):

    python examples/evl_ecg/prepare_data.py --simulated_train 1 --simulated_test 1 --output_dir outputs/smoke_questions
    python studies/evl_ecg/small_models.py --kind teacher --data outputs/smoke_questions --output_dir outputs/smoke_init
    python examples/evl_ecg/train_teacher.py --model outputs/smoke_init --data outputs/smoke_questions --image_width 448 \
        --image_height 224 --grid thick --max_steps 3 --per_device_train_batch_size 4 --use_cpu --report_to none \
        --output_dir outputs/smoke_teacher

The log shows the cross-entropy of the answers. OUTPUT_DIR holds model (or LoRA adapter) and processor.
"""

import sys

from hf_evl_ecg.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["teach", *sys.argv[1:]]))
