#!/usr/bin/env python3
"""TRL + PEFT on SmolLM2: DPO (rank 32) or SFT (rank 64) on all seven linear layers, in fp32 or with bf16 autocast.

    python train_trl.py --model SmolLM2-135M-Instruct.Q4_1.gguf --work dpo --rows 4 --prompt 40 --new 60 --steps 3

--rows are the pairs or rows of one step; --steps are timed after one as warm-up. A token is a token of a row (prompt and
answer, chosen and rejected), counted once. Prints one JSON line; bench/compare.py runs it in turn with ours.
"""

import argparse
import tempfile
import warnings

warnings.filterwarnings("ignore", category=FutureWarning)

import workload as w  # also puts bench/reference on the path

import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import models


class Clock(TrainerCallback):
    """Keeps wall and CPU time at the end of every step."""

    def __init__(self):
        self.marks = []

    def on_step_end(self, args, state, control, **kwargs):
        self.marks.append(w.mark())


class GivenIds(DPOTrainer):
    """The trainer with its tokenisation left out: the rows hold ids already."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


def options(cls, folder, o, lr, **more):
    return cls(output_dir=folder, per_device_train_batch_size=o.rows, max_steps=o.steps + 1, learning_rate=lr,
               lr_scheduler_type="constant", use_cpu=True, bf16=o.dtype == "bf16", gradient_checkpointing=False, report_to=[],
               logging_steps=1, save_strategy="no", max_length=None, disable_tqdm=True, seed=0, **more)


def dpo(o, base, tok, folder):
    d = w.DPO
    args = options(DPOConfig, folder, o, d["lr"], beta=d["beta"], loss_type=["sigmoid", "sft"], loss_weights=[1.0, d["nll"]])
    rows = w.dpo_rows(o.rows * (o.steps + 1), o.prompt, o.new, base.config.vocab_size)
    return 2, GivenIds(model=base, args=args, processing_class=tok, peft_config=models.lora(d["rank"], d["alpha"]),
                       train_dataset=Dataset.from_list(rows))


def sft(o, base, tok, folder):
    d = w.SFT
    args = options(SFTConfig, folder, o, d["lr"], completion_only_loss=True)
    rows = w.sft_rows(o.rows * (o.steps + 1), o.prompt, o.new, base.config.vocab_size)
    return 1, SFTTrainer(model=base, args=args, processing_class=tok, peft_config=models.lora(d["rank"], d["alpha"]),
                         train_dataset=Dataset.from_list(rows))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    w.sizes(a, 4, 40, 60)
    a.add_argument("--work", choices=["dpo", "sft"], default="dpo")
    a.add_argument("--steps", type=int, default=3)
    a.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    transformers.utils.logging.set_verbosity_error()
    base = models.from_gguf(o.model)
    base.set_attn_implementation("sdpa")
    with tempfile.TemporaryDirectory() as folder:
        sides, trainer = (dpo if o.work == "dpo" else sft)(o, base, models.tokenizer_from_gguf(o.model), folder)
        clock = Clock()
        trainer.add_callback(clock)
        trainer.remove_callback(PrinterCallback)
        w.reset_peak()
        trainer.train()
    losses = [h["loss"] for h in trainer.state.log_history if "loss" in h]
    w.report(o.work, o.steps * o.rows * sides * (o.prompt + o.new), clock.marks[0], clock.marks[-1], dtype=o.dtype, losses=losses)


if __name__ == "__main__":
    main()
