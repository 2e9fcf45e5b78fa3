#!/usr/bin/env python3
"""Ours against TRL + PEFT (DPO, SFT) and transformers (generation), in turn: ratios of medians, by time and by memory.

    python bench/compare.py --model SmolLM2-135M-Instruct.Q4_1.gguf                   # rows of 100 tokens, fp32
    python bench/compare.py --model ... --tokens 96,545 --dtype bf16                  # short and long rows, peers in bf16
    python bench/compare.py --model ... --work dpo --batch 1 --steps 1 --times 1      # to see that it runs

Run with the Python that bench/setup.sh made. Every side runs in a process of its own: one warm-up step, then --steps
timed ones. Ratios over 1 mean that ours is better. Tokens a CPU second leave waiting for a core out, and are the
steadier figure on a busy machine. The peak is that of the work with the model, without loading.

  generate  16 rows at once, 40 prompt tokens, 64 new ones, temperature 0.7, top-p 0.95; tokens are the new ones
  dpo       LoRA rank 32 on all seven linear layers, 4 pairs a step, NLL weight 0.2, reference in the step
  sft       LoRA rank 64, 8 rows a step
  --tokens  prompt and answer of a training row together; two fifths are the prompt. 545 needs about 17 GB for TRL.
  --dtype   of the peers: fp32, or bf16 (autocast in TRL, bf16 weights in generate). Ours is what --ours-compute says.
"""

import sys

import sidebyside as s
from peers import workload as w


def jobs(o):
    """{name: {"ours": command, "peer": command}}"""
    ours, found = s.build("bench/peers/ours"), {}
    common = ["-model", o.model, "-threads", str(o.threads), *(["-compute", o.ours_compute] if o.ours_compute else [])]
    theirs = ["--model", o.model, "--threads", str(o.threads), "--dtype", o.dtype]

    def sizes(dash, **values):
        return [x for k, v in values.items() for x in (dash + k, str(v))]

    for work in o.work.split(","):
        if work == "generate":
            g = w.GENERATE
            n = dict(rows=o.batch or g["rows"], prompt=g["prompt"], new=g["new"])
            found[f"generate {n['rows']} x {g['prompt']}+{g['new']}"] = {
                "ours": [ours, *common, "-work", work, *sizes("-", **n)],
                "peer": s.peer("generate_transformers.py") + theirs + sizes("--", **n)}
            continue
        for tokens in map(int, o.tokens.split(",")):
            prompt, new = w.split(tokens)
            n = dict(rows=o.batch or (w.DPO if work == "dpo" else w.SFT)["batch"], prompt=prompt, new=new, steps=o.steps)
            found[f"{work} {n['rows']} x {tokens}"] = {
                "ours": [ours, *common, "-work", work, *sizes("-", **n)],
                "peer": s.peer("train_trl.py") + theirs + ["--work", work] + sizes("--", **n)}
    return found


def main():
    a = s.parser(__doc__)
    a.add_argument("--work", default="generate,dpo,sft")
    a.add_argument("--tokens", default="100", help="lengths of training rows, e.g. 96,545")
    a.add_argument("--steps", type=int, default=3, help="timed training steps a round")
    a.add_argument("--batch", type=int, help="rows (pairs) at once, instead of 16, 4 and 8")
    a.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="of the peers")
    a.add_argument("--ours-compute", choices=["exact", "bf16"], help="how ours multiplies; default: the engine's own")
    o = a.parse_args()
    s.check(o)
    unknown = set(o.work.split(",")) - {"generate", "dpo", "sft"}
    if unknown:
        s.fail(f"--work {', '.join(unknown)} is not known; choose from generate, dpo, sft")
    if not all(t.isdigit() and int(t) >= 4 for t in o.tokens.split(",")):
        s.fail(f"--tokens {o.tokens}: want lengths of at least 4, such as 96,545")
    s.need("torch", "transformers", "trl", "peft", "datasets", "gguf")
    m = s.machine(o, "torch", "transformers", "trl", "peft")
    seen = s.rounds(o, jobs(o), s.rate)

    out, rows = {}, []
    for name, sides in seen.items():
        r = {}
        for key, figure, better in (("tokens_per_second", lambda x: x["tokens"] / x["seconds"], 1),
                                    ("tokens_per_cpu_second", lambda x: x["tokens"] / x["cpu_seconds"], 1),
                                    ("peak_mb", lambda x: x["peak_mb"], -1)):
            us, them = s.median(sides["ours"], figure), s.median(sides["peer"], figure)
            r[key] = {"ours": us, "peer": them, "ratio": s.ratio(us, them) if better > 0 else s.ratio(them, us)}
        out[name] = {**r, "rounds": sides}
        rows.append([name] + [r[k][x] for k in r for x in ("ours", "peer", "ratio")])
    columns = [("work", "")]
    for figure, f in (("tokens/s", ".1f"), ("a CPU s", ".1f"), ("peak MB", ".0f")):
        columns += [("ours " + figure, f), ("peer", f), ("ratio", ".2f")]
    s.table(f"medians of {o.times}; peers in {o.dtype}, ours {o.ours_compute or 'as the engine does by itself'}", columns, rows)
    s.finish(o, {**m, "peer_dtype": o.dtype, "ours_compute": o.ours_compute}, out)


if __name__ == "__main__":
    sys.exit(main())
