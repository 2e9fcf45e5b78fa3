#!/usr/bin/env python3
"""transformers' generate on SmolLM2: prefill and decoding of all rows together. Every row gets all its new tokens.

    python generate_transformers.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--rows 16 --prompt 40 --new 64] [--dtype bf16]

Prints one JSON line; bench/compare.py runs it in turn with ours.
"""

import argparse

import workload as w  # also puts bench/reference on the path

import torch
import transformers

import models


def main():
    g = w.GENERATE
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    w.sizes(a, g["rows"], g["prompt"], g["new"])
    a.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    transformers.utils.logging.set_verbosity_error()
    model = models.from_gguf(o.model).to({"fp32": torch.float32, "bf16": torch.bfloat16}[o.dtype])
    model.set_attn_implementation("sdpa")
    x = torch.tensor(w.prompts(o.rows, o.prompt, 0, model.config.vocab_size))
    args = dict(attention_mask=torch.ones_like(x), do_sample=True, temperature=g["temperature"], top_p=g["top_p"],
                top_k=0, pad_token_id=2)
    torch.manual_seed(0)
    with torch.inference_mode():
        model.generate(x, max_new_tokens=4, min_new_tokens=4, **args)  # warm-up
        w.reset_peak()
        start = w.mark()
        y = model.generate(x, max_new_tokens=o.new, min_new_tokens=o.new, **args)
        end = w.mark()
    made = o.rows * (y.shape[1] - x.shape[1])
    assert made == o.rows * o.new, f"{made} tokens, wanted {o.rows * o.new}"
    w.report("generate", made, start, end, dtype=o.dtype)


if __name__ == "__main__":
    main()
