#!/usr/bin/env python3
"""Tokens a second of TRL + PEFT, float32: DPO (rank 32, 4 pairs) and SFT (rank 64, 8 rows) on SmolLM2.

    python train_trl.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--work dpo,sft] [--rows 4] [--json out.json]

--rows is the number of timed steps of each kind; one more runs before as warm-up.
A token is a token of a row (prompt and response, chosen and rejected), counted once.
"""

import argparse
import tempfile
import time

import workload as w  # also puts bench/reference on the path

import torch
import transformers
from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import models


class Clock(TrainerCallback):
    """Keeps wall and CPU time at the end of every step."""

    def __init__(self):
        self.marks = []

    def on_step_end(self, args, state, control, **kwargs):
        self.marks.append((time.perf_counter(), time.process_time()))


class GivenIds(DPOTrainer):
    """The trainer with its tokenisation left out: the rows hold ids already."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


def options(cls, folder, batch, lr, steps, **more):
    return cls(output_dir=folder, per_device_train_batch_size=batch, max_steps=steps, learning_rate=lr,
               lr_scheduler_type="constant", use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
               logging_steps=1, save_strategy="no", max_length=None, disable_tqdm=True, seed=0, **more)


def timed(trainer, clock, tokens_a_step):
    trainer.add_callback(clock)
    trainer.train()
    seconds, cpu = (clock.marks[-1][i] - clock.marks[0][i] for i in (0, 1))
    steps = len(clock.marks) - 1
    return {"tokens": steps * tokens_a_step, "seconds": seconds, "cpu_seconds": cpu, "steps": steps, "losses": [h["loss"] for h in trainer.state.log_history if "loss" in h]}


def dpo(gguf, tok, steps, folder):
    base = models.from_gguf(gguf)
    base.set_attn_implementation("sdpa")
    d = w.DPO
    args = options(DPOConfig, folder, d["batch"], d["lr"], steps + 1, beta=d["beta"], loss_type=["sigmoid", "sft"],
                   loss_weights=[1.0, d["nll"]])
    t = GivenIds(model=base, args=args, processing_class=tok, peft_config=models.lora(d["rank"], d["alpha"]),
                 train_dataset=Dataset.from_list(w.dpo_rows(d["batch"] * (steps + 1), base.config.vocab_size)))
    return timed(t, Clock(), d["batch"] * 2 * (d["prompt"] + d["response"]))


def sft(gguf, tok, steps, folder):
    base = models.from_gguf(gguf)
    base.set_attn_implementation("sdpa")
    s = w.SFT
    args = options(SFTConfig, folder, s["batch"], s["lr"], steps + 1, completion_only_loss=True)
    t = SFTTrainer(model=base, args=args, processing_class=tok, peft_config=models.lora(s["rank"], s["alpha"]),
                   train_dataset=Dataset.from_list(w.sft_rows(s["batch"] * (steps + 1), base.config.vocab_size)))
    return timed(t, Clock(), s["batch"] * (s["prompt"] + s["response"]))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", required=True)
    a.add_argument("--work", default="dpo,sft")
    a.add_argument("--rows", type=int, default=4, help="timed steps of each kind")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--json")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    transformers.utils.logging.set_verbosity_error()
    tok = models.tokenizer_from_gguf(o.model)
    out = {}
    with tempfile.TemporaryDirectory() as tmp:
        for name, run in (("dpo", dpo), ("sft", sft)):
            if name in o.work.split(","):
                out[name + "_step"] = run(o.model, tok, o.rows, tmp)
    w.report(out, o.threads, o.json)


if __name__ == "__main__":
    main()
