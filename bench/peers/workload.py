"""The work that ours and the peers do, and how a peer's report looks.

Rows are token ids drawn from a seed: time depends on lengths only. The Go side
(bench/peers/ours) uses the same lengths.

    dpo_step    4 pairs a batch, 40 prompt and 60 response tokens a row: 200 tokens a pair; LoRA rank 32
    sft_step    8 rows a batch, 40 prompt and 60 response tokens: 100 a row; LoRA rank 64
    generate16  16 rows, prompts of 40 tokens, 64 new tokens each, temperature 0.7, top-p 0.95
"""

import json
import os
import platform
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))

DPO = {"batch": 4, "prompt": 40, "response": 60, "rank": 32, "alpha": 32, "beta": 0.1, "nll": 0.2, "lr": 2e-4}
SFT = {"batch": 8, "prompt": 40, "response": 60, "rank": 64, "alpha": 64, "lr": 2e-5}
GENERATE = {"rows": 16, "prompt": 40, "new": 64, "temperature": 0.7, "top_p": 0.95}
SPECIAL = 17  # the first ids of SmolLM2 are special tokens


def ids(rng, n, vocab):
    return [rng.randrange(SPECIAL, vocab) for _ in range(n)]


def dpo_rows(n, vocab):
    rng = random.Random(1)
    return [{"prompt_ids": ids(rng, DPO["prompt"], vocab), "chosen_ids": ids(rng, DPO["response"], vocab),
             "rejected_ids": ids(rng, DPO["response"], vocab)} for _ in range(n)]


def sft_rows(n, vocab):
    rng = random.Random(2)
    return [{"input_ids": ids(rng, SFT["prompt"] + SFT["response"], vocab),
             "completion_mask": [0] * SFT["prompt"] + [1] * SFT["response"]} for _ in range(n)]


def prompts(n, vocab):
    rng = random.Random(3)
    return [ids(rng, GENERATE["prompt"], vocab) for _ in range(n)]


def cpu():
    """Model name and the widest vector unit, from /proc/cpuinfo where there is one."""
    try:
        info = dict(l.split(":", 1) for l in open("/proc/cpuinfo").read().split("\n\n")[0].splitlines() if ":" in l)
        info = {k.strip(): v.strip() for k, v in info.items()}
        flags = info.get("flags", "").split()
        wide = "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "generic"
        return f"{info.get('model name')} family {info.get('cpu family')} model {info.get('model')}, {wide}"
    except OSError:
        return platform.processor() or platform.machine()


def versions():
    import peft
    import torch
    import transformers
    import trl
    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
            "peft": peft.__version__, "trl": trl.__version__}


def report(rows, threads, path):
    """rows: {name: {"tokens", "seconds", "cpu_seconds", ...}}. Prints a table, then one JSON line.

    Tokens a CPU second is the figure to trust on a busy machine: waiting for a core is not in it.
    """
    for r in rows.values():
        r["tokens_per_second"] = r["tokens"] / r["seconds"]
        r["tokens_per_cpu_second"] = r["tokens"] / r["cpu_seconds"]
    print(f"CPU: {cpu()}; threads: {threads}; {versions()}")
    print(f"{'work':<12} {'tokens/s':>10} {'a CPU s':>9} {'tokens':>8} {'seconds':>9}")
    for name, r in rows.items():
        print(f"{name:<12} {r['tokens_per_second']:>10.1f} {r['tokens_per_cpu_second']:>9.1f} {r['tokens']:>8} {r['seconds']:>9.2f}")
    line = json.dumps({**rows, "threads": threads, "cpu": cpu(), "versions": versions()})
    print(line)
    if path:
        with open(path, "w") as f:
            f.write(line + "\n")
