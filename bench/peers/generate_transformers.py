#!/usr/bin/env python3
"""Tokens a second of transformers' generate, float32, on SmolLM2: 16 rows x 40-token prompts x 64 new tokens.

    python generate_transformers.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--rows 16] [--json out.json]

The time is that of the whole call (prefill and decode); the tokens are the new ones. Every row gets all 64 tokens.
"""

import argparse
import time

import workload as w  # also puts bench/reference on the path

import torch
import transformers

import models


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", required=True)
    a.add_argument("--rows", type=int, default=w.GENERATE["rows"], help="rows generated at once")
    a.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--json")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    transformers.utils.logging.set_verbosity_error()
    model = models.from_gguf(o.model).to(getattr(torch, o.dtype))
    model.set_attn_implementation("sdpa")
    g = w.GENERATE
    x = torch.tensor(w.prompts(o.rows, model.config.vocab_size))
    args = dict(attention_mask=torch.ones_like(x), do_sample=True, temperature=g["temperature"], top_p=g["top_p"],
                top_k=0, pad_token_id=2)
    torch.manual_seed(0)
    with torch.inference_mode():
        model.generate(x, max_new_tokens=4, min_new_tokens=4, **args)  # warm-up
        t0, c0 = time.perf_counter(), time.process_time()
        y = model.generate(x, max_new_tokens=g["new"], min_new_tokens=g["new"], **args)
        seconds, cpu = time.perf_counter() - t0, time.process_time() - c0
    new = o.rows * (y.shape[1] - x.shape[1])
    assert new == o.rows * g["new"]
    w.report({f"generate{o.rows}": {"tokens": new, "seconds": seconds, "cpu_seconds": cpu, "dtype": o.dtype}}, o.threads, o.json)


if __name__ == "__main__":
    main()
