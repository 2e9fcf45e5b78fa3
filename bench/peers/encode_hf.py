#!/usr/bin/env python3
"""Hugging Face's tokenizers (Rust) on groups of documents, one after the other on one thread: the peer of bench/peers/encode.

    python encode_hf.py --tokenizer tokenizer.json|model.gguf --texts texts.jsonl [--turns 5]

Uses encode_batch_fast, which leaves offsets out: the quickest that the library has. Prints one JSON line; the SHA-256 is of
every document's length and ids as little-endian int32, after the timing.
"""

import argparse
import hashlib
import json
import os
import statistics
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import tokenizers


def load(path):
    if not path.endswith(".gguf"):
        return tokenizers.Tokenizer.from_file(path)
    import workload  # noqa: F401 - puts bench/reference on the path

    import models
    return models.tokenizer_from_gguf(path).backend_tokenizer


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--tokenizer", required=True)
    a.add_argument("--texts", required=True)
    a.add_argument("--turns", type=int, default=5)
    o = a.parse_args()
    start = time.perf_counter()
    tok = load(o.tokenizer)
    loaded, groups = time.perf_counter() - start, []
    encode = lambda docs: tok.encode_batch_fast(docs, add_special_tokens=False)
    for line in open(o.texts, encoding="utf-8"):
        g = json.loads(line)
        docs, seconds, cpu, sha = g["documents"], [], [], hashlib.sha256()
        c = time.process_time()
        encoded = encode(docs)
        first = time.process_time() - c
        rows = [np.array([len(e.ids), *e.ids], "<i4") for e in encoded]
        del encoded
        for r in rows:
            sha.update(r.tobytes())
        for _ in range(o.turns):
            t, c = time.perf_counter(), time.process_time()
            encode(docs)
            seconds.append(time.perf_counter() - t)
            cpu.append(time.process_time() - c)
        groups.append({"name": g["name"], "bytes": sum(len(d.encode()) for d in docs), "tokens": sum(int(r[0]) for r in rows),
                       "seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu), "first_cpu_seconds": first, "sha256": sha.hexdigest()})
    print(json.dumps({"load_seconds": loaded, "version": tokenizers.__version__, "groups": groups}))


if __name__ == "__main__":
    main()
