#!/usr/bin/env python3
"""Products with weights in OpenBLAS (the one inside numpy) or torch: one JSON line with the speed of every shape.

    python gemm_blas.py --library openblas --threads 2 --shapes linear:512x576x1536,backward:512x1536x576

A shape is kind:MxKxN. linear: y[M,N] = x[M,K] . W[N,K]^T, what a linear layer does; backward: y[M,N] = x[M,K] . W[K,N], the
gradient of its input. Libraries: openblas and torch in fp32, torch-bf16 with inputs, weights and outputs in bf16. With one
thread time is what the thread used, as in bench/gemm. bench/compare_gemm.py runs it in turn with ours.
"""

import argparse
import json
import statistics
import sys
import time


def openblas(kind, m, k, n):
    import numpy as np
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((m, k), dtype=np.float32), np.empty((m, n), np.float32)
    w = rng.standard_normal((n, k) if kind == "linear" else (k, n), dtype=np.float32)
    w = w.T if kind == "linear" else w
    return lambda: np.matmul(x, w, out=y)


def with_torch(dtype):
    def make(kind, m, k, n):
        import torch
        x = torch.randn(m, k).to(getattr(torch, dtype))
        w = torch.randn(*((n, k) if kind == "linear" else (k, n))).to(getattr(torch, dtype))

        def linear():
            with torch.inference_mode():
                torch.nn.functional.linear(x, w)

        def backward():
            with torch.inference_mode():
                torch.mm(x, w)
        return linear if kind == "linear" else backward
    return make


def version(library, threads):
    if library == "openblas":
        import numpy as np
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"numpy {np.__version__}, {blas['name']} {blas['version']}"
    import torch
    torch.set_num_threads(threads)
    return f"torch {torch.__version__}"


def measure(run, turns, clock):
    run()
    t = clock()
    run()
    n = 1 + int(0.01 / max(clock() - t, 1e-6))
    seconds = []
    for _ in range(turns):
        t = clock()
        for _ in range(n):
            run()
        seconds.append((clock() - t) / n)
    return statistics.median(seconds)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made = {"openblas": openblas, "torch": with_torch("float32"), "torch-bf16": with_torch("bfloat16")}
    a.add_argument("--library", choices=made, required=True)
    a.add_argument("--shapes", required=True)
    a.add_argument("--turns", type=int, default=5)
    a.add_argument("--threads", type=int, default=2, help="OpenBLAS reads OPENBLAS_NUM_THREADS instead: set both")
    o = a.parse_args()
    v, lines = version(o.library, o.threads), []
    clock = time.thread_time if o.threads == 1 else time.perf_counter
    for shape in o.shapes.split(","):
        try:
            kind, sizes = shape.split(":")
            m, k, n = map(int, sizes.split("x"))
        except ValueError:
            sys.exit(f"gemm_blas: shape {shape!r} is not kind:MxKxN")
        t = measure(made[o.library](kind, m, k, n), o.turns, clock)
        lines.append({"kind": kind, "m": m, "k": k, "n": n, "us": t * 1e6, "gflops": 2 * m * k * n / t / 1e9})
    print(json.dumps({"library": o.library, "version": v, "lines": lines}))


if __name__ == "__main__":
    main()
