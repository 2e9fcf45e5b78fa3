"""The work that ours and the peers do, and how a peer reports it.

Rows are token ids drawn from a seed: time depends on lengths only. The Go side (bench/peers/ours) takes the same sizes.
"""

import gc
import json
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "reference"))

DPO = {"batch": 4, "rank": 32, "alpha": 32, "beta": 0.1, "nll": 0.2, "lr": 2e-4}
SFT = {"batch": 8, "rank": 64, "alpha": 64, "lr": 2e-5}
GENERATE = {"rows": 16, "prompt": 40, "new": 64, "temperature": 0.7, "top_p": 0.95}
SPECIAL = 17  # the first ids of SmolLM2 are special tokens


def split(tokens):
    """Prompt and answer tokens of a row: two fifths and the rest."""
    return tokens * 2 // 5, tokens - tokens * 2 // 5


def ids(rng, n, vocab):
    return [rng.randrange(SPECIAL, vocab) for _ in range(n)]


def dpo_rows(n, prompt, new, vocab):
    rng = random.Random(1)
    return [{"prompt_ids": ids(rng, prompt, vocab), "chosen_ids": ids(rng, new, vocab), "rejected_ids": ids(rng, new, vocab)}
            for _ in range(n)]


def sft_rows(n, prompt, new, vocab):
    rng = random.Random(2)
    return [{"input_ids": ids(rng, prompt + new, vocab), "completion_mask": [0] * prompt + [1] * new} for _ in range(n)]


def prompts(rows, prompt, shared, vocab):
    """Prompts of which the first `shared` tokens are the same."""
    rng = random.Random(3)
    head = ids(rng, shared, vocab)
    return [head + ids(rng, prompt - shared, vocab) for _ in range(rows)]


def sizes(a, rows, prompt, new):
    """The options that ours has too."""
    a.add_argument("--model", required=True)
    a.add_argument("--rows", type=int, default=rows, help="rows (dpo: pairs) at once")
    a.add_argument("--prompt", type=int, default=prompt, help="prompt tokens of a row")
    a.add_argument("--new", type=int, default=new, help="answer tokens of a row, or tokens to generate")
    a.add_argument("--threads", type=int, default=2)
    return a


def mark():
    return time.perf_counter(), time.process_time()


def reset_peak():
    """Forgets the greatest resident size so far, where the system allows it: what loading took is not part of the work."""
    gc.collect()
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    except OSError:
        pass  # elsewhere the peak includes loading


def peak_mb():
    """Largest resident size since reset_peak, or 0 where the system does not tell."""
    try:
        for line in open("/proc/self/status"):
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0


def report(work, tokens, start, end, **more):
    """Prints the result line. start, end: marks."""
    print(json.dumps({"work": work, "tokens": tokens, "seconds": end[0] - start[0], "cpu_seconds": end[1] - start[1],
                      "peak_mb": peak_mb(), **more}), flush=True)
