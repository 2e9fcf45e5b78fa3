#!/usr/bin/env python3
"""Our products with weights against OpenBLAS (inside numpy) and torch, in turn: share of the machine's peak, ratios.

    python bench/compare_gemm.py                          # all shapes of the small model, 2 threads
    python bench/compare_gemm.py --threads 1 --only head  # lines of bench/gemm whose name contains "head"
    python bench/compare_gemm.py --times 1 --turns 1      # to see that it runs

Run with the Python that bench/setup.sh made; numpy and torch must be there. The share is of the multiply-add peak that
bench/gemm measures next to every shape of ours (--ours-compute exact: fp32; bf16: that of bf16 products); the peers' are of
the peak of the same round, so torch-bf16 may stand above 100 % of that of fp32. Ours multiplies fp32 rows with weights kept
in bf16 and widened exactly; torch-bf16 rounds rows, weights and results to bf16. Ratios over 1 mean that ours is faster.

linear MxK->N is y = x.W^T, backward MxK->N is the gradient of its input. With one thread figures are of CPU time.
"""

import sys

import sidebyside as s

LIBRARIES = ["openblas", "torch", "torch-bf16"]


def main():
    a = s.parser(__doc__, model=False)
    a.add_argument("--only", default="", help="shapes whose name contains this")
    a.add_argument("--turns", type=int, default=5, help="measurements of a shape in a round; their median counts")
    a.add_argument("--libraries", default=",".join(LIBRARIES))
    a.add_argument("--ours-compute", choices=["exact", "bf16"], default="exact", help="how ours multiplies; the share is of that mode's peak")
    o = a.parse_args()
    s.check(o)
    libraries = o.libraries.split(",")
    if not set(libraries) <= set(LIBRARIES):
        s.fail(f"--libraries {o.libraries}: choose from {', '.join(LIBRARIES)}")
    s.need("numpy", *(["torch"] if set(libraries) != {"openblas"} else []))
    m = s.machine(o, "numpy", "torch")
    ours = [s.build("bench/gemm"), "-peers", "-only", o.only, "-threads", str(o.threads), "-compute", o.ours_compute]
    first = s.run([*ours, "-turns", "1"], o.threads)
    if not first["lines"]:
        s.fail(f"--only {o.only!r} matches no shape; `go run ./bench/gemm -peers -turns 1` lists them")
    shapes = ",".join(f"{x['kind']}:{x['m']}x{x['k']}x{x['n']}" for x in first["lines"])
    jobs = {"shapes": {"ours": [*ours, "-turns", str(o.turns)]}}
    for lib in libraries:
        jobs["shapes"][lib] = s.peer("gemm_blas.py") + ["--library", lib, "--shapes", shapes, "--turns", str(o.turns),
                                                       "--threads", str(o.threads)]
    seen = s.rounds(o, jobs, lambda r: f"{sum(x['us'] for x in r['lines']) / 1e3:.1f} ms for one of each")["shapes"]
    m["variant"], m["libraries"] = seen["ours"][0]["variant"], {lib: seen[lib][0]["version"] for lib in libraries}

    out, rows = {}, []
    for i, line in enumerate(first["lines"]):
        def speed(side):
            return s.median(seen[side], lambda r: r["lines"][i]["gflops"])
        peak = s.median(seen["ours"], lambda r: r["lines"][i]["peak_gflops"])
        r = {"ours": speed("ours"), "peak": peak, "share": s.median(seen["ours"], lambda r: r["lines"][i]["share"])}
        row = [line["name"], r["ours"], peak, 100 * r["share"]]
        for lib in libraries:
            r[lib] = {"gflops": speed(lib), "share": speed(lib) / peak, "ratio": s.ratio(r["ours"], speed(lib))}
            row += [100 * r[lib]["share"], r[lib]["ratio"]]
        out[line["name"]] = r
        rows.append(row)
    columns = [("shape", ""), ("ours GF/s", ".1f"), ("peak", ".0f"), ("ours %", ".0f")]
    for lib in libraries:
        columns += [(lib + " %", ".0f"), ("ratio", ".2f")]
    s.table(f"medians of {o.times} rounds; variant {m['variant']}, {', '.join(dict.fromkeys(m['libraries'].values()))}", columns, rows)
    s.finish(o, m, out)


if __name__ == "__main__":
    sys.exit(main())
