#!/usr/bin/env python3
"""Generation with ours against llama.cpp on the same GGUF files, in turn: prefill, one stream, many rows, a shared prefix.

    python bench/compare_llama.py --model SmolLM2-135M-Instruct.Q4_1.gguf --folder DIR
    python bench/compare_llama.py --model ... --folder DIR --files bf16 --work decode --temperature 0
    python bench/compare_llama.py --model ... --folder DIR --smoke       # tiny counts, to see that it runs

Run with the Python that `bench/setup.sh DIR --llama` made. The bf16 and q8_0 files are made in --folder from the model's
own weights. Ours keeps what a file holds, bf16, q8_0 or q4_1 (--ours-weights bf16 rounds all of them to bf16), and multiplies
with fp32 activations; llama.cpp rounds activations to the file's format and keeps keys and values in fp16. No end token stops a row; both sides sample alike. llama.cpp runs many rows with a unified
and with a split cache, and the faster one counts. Ratios over 1 mean that ours is better.

  prefill   1 row of 512 tokens, to its first new token; tokens are those of the prompt
  decode    1 row, 40 prompt tokens and 64 new ones, decoding alone
  rows16    16 rows of 470 prompt tokens and 64 new ones: new tokens by the whole time, and decoding alone
  shared64  64 rows on a shared prefix of 600 tokens, 37 tokens of their own, 64 new ones
"""

import os
import subprocess
import sys

import sidebyside as s

WORK = {"prefill": dict(rows=1, prompt=512, new=1), "decode": dict(rows=1, prompt=40, new=64),
        "rows16": dict(rows=16, prompt=470, new=64), "shared64": dict(rows=64, prompt=637, shared=600, new=64)}
SMOKE = {"prefill": dict(rows=1, prompt=32, new=1), "decode": dict(rows=1, prompt=8, new=8),
         "rows16": dict(rows=4, prompt=20, new=4), "shared64": dict(rows=6, prompt=24, shared=16, new=4)}


def files(o):
    """{format: path}; makes what is not there."""
    found = {}
    for kind in o.files.split(","):
        if kind == "q4_1":
            found[kind] = o.model
            continue
        stem = os.path.basename(o.model).removesuffix(".gguf").removesuffix(".Q4_1")
        found[kind] = os.path.join(o.folder, f"{stem}.{kind}.gguf")
        if subprocess.run(s.peer("make_gguf.py") + [o.model, kind, found[kind]], stdout=subprocess.DEVNULL).returncode:
            s.fail(f"could not make {found[kind]}; the messages stand above")
    return found


def jobs(o, sizes):
    ours, found = s.build("bench/peers/ours"), {}
    for kind, path in files(o).items():
        for work in o.work.split(","):
            n = {**sizes[work], "threads": o.threads, "temperature": o.temperature}
            flags = lambda dash: [x for k, v in n.items() for x in (dash + k, str(v))]
            theirs = s.peer("generate_llama.py") + ["--model", path, *flags("--")]
            sides = {"ours": [ours, "-model", path, "-work", "generate", *flags("-"),
                              "-weights", (o.ours_weights or "quantized") if kind != "bf16" else "bf16",
                              *(["-compute", o.ours_compute] if o.ours_compute else [])]}
            for cache in ["unified", "split"] if n["rows"] > 1 else ["unified"]:
                sides[cache] = [*theirs, "--cache", cache]
            found[kind, work] = sides
    return {f"{work} {kind}": sides for (kind, work), sides in found.items()}


def main():
    a = s.parser(__doc__)
    a.add_argument("--folder", required=True, help="where the bf16 and q8_0 files are kept (416 MB)")
    a.add_argument("--files", default="bf16,q8_0,q4_1")
    a.add_argument("--work", default=",".join(WORK))
    a.add_argument("--temperature", type=float, default=0.7, help="0 takes the most probable token; else top-p 0.95")
    a.add_argument("--ours-compute", choices=["exact", "bf16"], help="how ours multiplies; default: the engine's own")
    a.add_argument("--ours-weights", choices=["bf16", "quantized"], help="how ours keeps the weights of q8_0 and q4_1 files; default: quantized")
    a.add_argument("--smoke", action="store_true", help="tiny counts: the figures mean nothing")
    o = a.parse_args()
    s.check(o)
    for given, known, name in ((o.files, ["bf16", "q8_0", "q4_1"], "--files"), (o.work, list(WORK), "--work")):
        if not set(given.split(",")) <= set(known):
            s.fail(f"{name} {given}: choose from {', '.join(known)}")
    s.need("llama_cpp", "gguf", how="bench/setup.sh DIR --llama")
    os.makedirs(o.folder, exist_ok=True)
    m = s.machine(o, "llama_cpp_python", "gguf")
    if m["load_before"] > 0.5 and o.threads > 1:
        print("note: llama.cpp's threads spin; on a busy machine it loses most of its speed: use --threads 1", file=sys.stderr)
    sizes = SMOKE if o.smoke else WORK
    seen = s.rounds(o, jobs(o, sizes), s.rate)

    out, rows = {}, []
    for name, sides in seen.items():
        n = sizes[name.split()[0]]
        tokens = n["prompt"] if n["new"] == 1 else n["rows"] * n["new"]
        whole = lambda r: tokens / r["seconds"]
        alone = lambda r: r["decode_tokens"] / r["decode_seconds"] if r.get("decode_tokens") else None
        # One stream is about decoding; of the others the whole time counts.
        speed = alone if n["rows"] == 1 and n["new"] > 1 else whole
        caches = [c for c in sides if c != "ours"]
        best = max(caches, key=lambda c: s.median(sides[c], speed))
        r = {"ours": s.median(sides["ours"], speed), "peer": s.median(sides[best], speed), "cache": best if n["rows"] > 1 else None,
             "decode": {x: s.median(sides[y], alone) for x, y in (("ours", "ours"), ("peer", best))},
             "peak_mb": {x: s.median(sides[y], lambda r: r["peak_mb"]) for x, y in (("ours", "ours"), ("peer", best))}}
        r["ratio"] = s.ratio(r["ours"], r["peer"])
        r["cpu_ratio"] = s.ratio(s.median(sides[best], lambda r: r["cpu_seconds"]), s.median(sides["ours"], lambda r: r["cpu_seconds"]))
        out[name] = {**r, "rounds": sides}
        rows.append([name, r["ours"], r["peer"], r["ratio"], r["cpu_ratio"], r["decode"]["ours"], r["decode"]["peer"],
                     s.ratio(r["decode"]["ours"], r["decode"]["peer"]), r["peak_mb"]["ours"], r["peak_mb"]["peer"], r["cache"]])
    columns = [("work", ""), ("ours tokens/s", ".1f"), ("llama.cpp", ".1f"), ("ratio", ".2f"), ("of CPU s", ".2f"), ("decode: ours", ".1f"),
               ("llama.cpp", ".1f"), ("ratio", ".2f"), ("peak MB: ours", ".0f"), ("llama.cpp", ".0f"), ("cache", "")]
    s.table(f"medians of {o.times}, new tokens a second (prefill: prompt tokens), temperature {o.temperature}", columns, rows)
    s.finish(o, {**m, "ours_compute": o.ours_compute, "ours_weights": o.ours_weights or "quantized"}, out)


if __name__ == "__main__":
    sys.exit(main())
