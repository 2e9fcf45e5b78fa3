#!/usr/bin/env python3
"""Records what torch, transformers, PEFT and TRL compute, for the Go tests to compare with.

    python record.py --transformer ../../lm/transformer/testdata/ref --train ../../lm/train/testdata/ref \
        [--model SmolLM2-135M-Instruct.Q4_1.gguf]

Without --model only the tiny random models are recorded. Everything runs on the
CPU in float32 with fixed seeds. Formats are described in the README.md of each
output folder.
"""

import argparse
import json
import sys

import torch
import transformers

import tiny
import models


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", help="SmolLM2 GGUF file; also records the smollm2 folders")
    a.add_argument("--transformer", required=True, help="output folder for forward and gradient recordings")
    a.add_argument("--train", required=True, help="output folder for optimiser recordings")
    a.add_argument("--threads", type=int, default=1, help="the recordings were made with 1; other numbers change last bits")
    a.add_argument("--only", help="names of tiny models, with commas; without it all are recorded")
    a.add_argument("--skip-tiny", action="store_true", help="leave the tiny recordings as they are")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()

    if not o.skip_tiny:
        for name, build, seed, steps, published in (("tiny-llama", models.tiny_llama, 100, True, False),
                                                    ("tiny-qwen3", models.tiny_qwen3, 200, True, True),
                                                    ("tiny-llama3", models.tiny_llama3, 300, False, True),
                                                    ("tiny-gemma3", models.tiny_gemma3, 400, True, False)):
            if o.only and name not in o.only.split(","):
                continue
            errors, got, trl = tiny.record(name, build(), seed, o.transformer, o.train if steps else None, published)
            print(name, json.dumps({"float32_error": errors, "trl": trl}, indent=1))
            for kind in ("dpo", "sft"):
                print(kind, [round(s["loss"], 4) for s in got[f"{kind}_steps"][0]],
                      [round(s["grad_norm"], 3) for s in got[f"{kind}_steps"][0]])
    if o.model:
        import smollm2
        smollm2.record(o.model, o.transformer, o.train)
    return 0


if __name__ == "__main__":
    sys.exit(main())
