#!/usr/bin/env python3
"""How our time and memory grow with the work: 1x, 4x and 16x the rows, and 1x, 4x and 16x the tokens of a row.

    python bench/scaling.py --model SmolLM2-135M-Instruct.Q4_1.gguf
    python bench/scaling.py --model ... --times 1 --factors 1,2 --tokens 20     # to see that it runs

Needs Go and Python only, no peer. Each size runs in a process of its own, after a warm-up of the same size (generation: a
small one). "x linear" is the time of a step divided by the factor times the time of 1x: 1.00 is linear, less is better. Attention
takes more with every token of a row, so long rows may stand a little above. The peak includes the model (270 MB, with a
transposed copy for training twice that); "MB more" is what it grew over that of 1x.

  score     log-probs of rows; 1x is 1 row of --tokens
  generate  1x is 4 rows, prompts of 40, --tokens / 5 new ones
  dpo       a step of rank 32; 1x is 1 pair of rows of --tokens
"""

import sys

import sidebyside as s
from peers import workload as w


def sizes(work, kind, f, tokens):
    """Flags of ours for f times the rows, or f times the tokens of a row."""
    rows, by = f if kind == "rows" else 1, f if kind == "tokens" else 1
    if work == "generate":
        return dict(rows=4 * rows, prompt=40, new=max(2, tokens // 5) * by)
    prompt, new = w.split(tokens * by)
    return dict(rows=rows, prompt=prompt, new=new, steps=max(1, 8 // f))


def main():
    a = s.parser(__doc__)
    a.add_argument("--work", default="score,generate,dpo")
    a.add_argument("--factors", default="1,4,16")
    a.add_argument("--tokens", type=int, default=100, help="of a row at 1x")
    a.add_argument("--ours-compute", choices=["exact", "bf16"], help="how ours multiplies; default: the engine's own")
    o = a.parse_args()
    s.check(o)
    if not set(o.work.split(",")) <= {"score", "generate", "dpo"}:
        s.fail(f"--work {o.work}: choose from score, generate, dpo")
    if not all(f.isdigit() and int(f) > 0 for f in o.factors.split(",")) or o.tokens < 4:
        s.fail(f"--factors {o.factors}, --tokens {o.tokens}: want whole factors such as 1,4,16 and at least 4 tokens")
    factors = [int(f) for f in o.factors.split(",")]
    m, ours = s.machine(o), s.build("bench/peers/ours")
    common = [ours, "-model", o.model, "-threads", str(o.threads), *(["-compute", o.ours_compute] if o.ours_compute else [])]
    jobs, keys = {}, {}
    for work in o.work.split(","):
        for kind in ("rows", "tokens"):
            for f in factors:
                name = f"{work} {f}x {kind}"
                keys[name] = work, kind, f
                n = sizes(work, kind, f, o.tokens)
                jobs[name] = {"ours": [*common, "-work", work, *(x for k, v in n.items() for x in ("-" + k, str(v)))]}
    seen = s.rounds(o, jobs, lambda r: f"{r['seconds']:.2f} s, {r['peak_mb']:.0f} MB")

    out, rows = {}, []
    for name, (work, kind, f) in keys.items():
        mine = seen[name]["ours"]
        first = seen[f"{work} {factors[0]}x {kind}"]["ours"]
        steps = 1 if work == "generate" else sizes(work, kind, f, o.tokens)["steps"]
        before = 1 if work == "generate" else sizes(work, kind, factors[0], o.tokens)["steps"]
        grown = f / factors[0]

        def linear(figure):
            return s.median(mine, lambda r: r[figure] / steps) / (grown * s.median(first, lambda r: r[figure] / before))

        time, peak = s.median(mine, lambda r: r["seconds"] / steps), s.median(mine, lambda r: r["peak_mb"])
        tokens = mine[0]["tokens"] // steps
        r = {"rows": sizes(work, kind, f, o.tokens)["rows"], "tokens": tokens, "seconds": time, "tokens_per_second": tokens / time,
             "linear": linear("seconds"), "linear_cpu": linear("cpu_seconds"), "peak_mb": peak, "more_mb": (peak or 0) - (s.median(first, lambda r: r["peak_mb"]) or 0)}
        out[name] = r
        rows.append([name, r["rows"], r["tokens"], r["seconds"], r["linear"], r["linear_cpu"], r["tokens_per_second"], r["peak_mb"], r["more_mb"]])
    m["variant"] = next(iter(seen.values()))["ours"][0]["variant"]
    columns = [("work", ""), ("rows", ""), ("tokens", ""), ("seconds", ".2f"), ("x linear", ".2f"), ("of CPU", ".2f"), ("tokens/s", ".0f"), ("peak MB", ".0f"),
               ("MB more", ".0f")]
    s.table(f"medians of {o.times}, variant {m['variant']}", columns, rows)
    s.finish(o, {**m, "ours_compute": o.ours_compute}, out)


if __name__ == "__main__":
    sys.exit(main())
