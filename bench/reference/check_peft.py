#!/usr/bin/env python3
"""Loads an exported adapter folder in PEFT and compares summed log-probs with those of `character score`.

    python check_peft.py --model SmolLM2-135M-Instruct.Q4_1.gguf --scores scores.jsonl [--adapter export/character]

scores: JSONL rows {"prompt" or "messages", "response", "logprob", "tokens"}; logprob is the sum over the response
tokens and the end token. Without --adapter the base model is checked. --plain leaves the weights as transformers
reads them instead of rounding them to bf16: the difference is then that of bf16 weights (see the recordings).
Exit status 1 if a row's difference a token exceeds --tolerance, or a token count differs.
"""

import argparse
import json
import sys

import torch
import transformers
from peft import PeftModel

import losses
import models


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", required=True)
    a.add_argument("--scores", required=True)
    a.add_argument("--adapter", help="PEFT folder")
    a.add_argument("--plain", action="store_true", help="do not round the weights to bf16")
    a.add_argument("--tolerance", type=float, default=None, help="nats a token (default 1e-4, with --plain 0.05)")
    a.add_argument("--rows", type=int, default=0, help="check only so many rows; 0 = all")
    a.add_argument("--threads", type=int, default=2)
    o = a.parse_args()
    tolerance = o.tolerance if o.tolerance is not None else (0.05 if o.plain else 1e-4)
    torch.set_num_threads(o.threads)
    transformers.utils.logging.set_verbosity_error()

    tok = models.tokenizer_from_gguf(o.model)
    model = models.from_gguf(o.model, bf16=not o.plain)
    if o.adapter:
        model = PeftModel.from_pretrained(model, o.adapter, autocast_adapter_dtype=False).eval()
    rows = [json.loads(line) for line in open(o.scores, encoding="utf-8") if line.strip()]
    rows = rows[:o.rows or len(rows)]
    if not rows:
        raise SystemExit(f"{o.scores}: no rows; make it with `character score`")
    worst = total = 0.0
    bad = 0
    for i, r in enumerate(rows):
        before = r.get("messages") or [{"role": "user", "content": r["prompt"]}]
        ids, mask = models.encode_chat(tok, before + [{"role": "assistant", "content": r["response"]}])
        last = len(mask) - 1 - mask[::-1].index(0)  # only the final answer counts
        mask = [0] * (last + 1) + [1] * (len(mask) - last - 1)
        with torch.no_grad():
            value = losses.response(model, {"tokens": ids, "mask": mask}).double().sum().item()
        n = sum(mask)
        difference = abs(value - r["logprob"]) / n
        worst, total = max(worst, difference), total + difference
        if n != r["tokens"] or not difference <= tolerance:
            bad += 1
            print(f"row {i}: transformers {value:.4f} over {n} tokens, given {r['logprob']:.4f} over {r['tokens']}")
    print(f"{len(rows)} rows, {bad} differ; greatest difference {worst:.2e} nats a token, mean {total / len(rows):.2e}, "
          f"tolerance {tolerance:g}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
