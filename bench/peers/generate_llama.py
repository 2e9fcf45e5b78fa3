#!/usr/bin/env python3
"""llama.cpp (through llama-cpp-python) on a GGUF file: prefill and decoding of many rows. Every row gets all its new tokens.

    python generate_llama.py --model FILE.gguf [--rows 16 --prompt 470 --new 64] [--shared 0] [--cache unified|split]

The prompt's --shared first tokens are the same in every row: they are computed once and copied (llama_memory_seq_cp).
--cache split gives every row a part of the cache of its own; unified lets all rows attend in one. Sampling is the one of
ours: temperature, then top-p over the whole vocabulary; --temperature 0 takes the most probable token. Prints one JSON line.
"""

import argparse
import ctypes
import os

import workload as w

import llama_cpp as L

VERSION = f"llama-cpp-python {L.__version__}"


@L.llama_log_callback
def silent(level, text, data):
    pass


class Rows:
    """A context with the rows' places in it. llama.cpp samples from the logits of a place in the last batch."""

    def __init__(self, model, rows, tokens, o):
        p = L.llama_context_default_params()
        p.n_ctx = tokens if o.cache == "unified" else rows * o.longest
        p.n_batch = p.n_ubatch = 512
        p.n_seq_max, p.kv_unified = rows, o.cache == "unified"
        p.n_threads = p.n_threads_batch = o.threads
        self.ctx = L.llama_init_from_model(model, p)
        if not self.ctx:
            raise SystemExit("generate_llama: llama.cpp made no context; its log is silenced, set LLAMA_LOG=1 to see it")
        self.batch = L.llama_batch_init(512, 0, rows)
        self.memory = L.llama_get_memory(self.ctx)

    def decode(self, entries):
        """entries: (token, position, row, logits wanted). At most 512."""
        b = self.batch
        b.n_tokens = len(entries)
        for i, (token, pos, row, logits) in enumerate(entries):
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, pos, 1, row, logits
        if code := L.llama_decode(self.ctx, b):
            raise SystemExit(f"generate_llama: llama_decode returned {code} for {len(entries)} tokens")

    def fill(self, row, tokens, at, last=None):
        """Feeds tokens to a row; returns last(place) after the batch that ends with the last of them."""
        for i in range(0, len(tokens), 512):
            part = tokens[i:i + 512]
            end = last is not None and i + 512 >= len(tokens)
            self.decode([(t, at + i + j, row, end and j + 1 == len(part)) for j, t in enumerate(part)])
        return last(len(part) - 1) if last else None

    def close(self):
        L.llama_batch_free(self.batch)
        L.llama_free(self.ctx)


def chain(o, seed):
    c = L.llama_sampler_chain_init(L.llama_sampler_chain_default_params())
    if o.temperature == 0:
        L.llama_sampler_chain_add(c, L.llama_sampler_init_greedy())
    else:
        for s in (L.llama_sampler_init_temp(o.temperature), L.llama_sampler_init_top_p(o.top_p, 1), L.llama_sampler_init_dist(seed)):
            L.llama_sampler_chain_add(c, s)
    return c


def generate(model, prompts, shared, new, o):
    """Returns the marks at the start, when every row has its first token, and at the end."""
    n = len(prompts)
    r = Rows(model, n, shared + sum(len(p) - shared + new for p in prompts) + 64, o)
    samplers = [chain(o, i) for i in range(n)]
    draw = lambda row, place: L.llama_sampler_sample(samplers[row], r.ctx, place)
    start = w.mark()
    if shared:
        r.fill(0, prompts[0][:shared], 0)
        for row in range(1, n):
            L.llama_memory_seq_cp(r.memory, 0, row, -1, -1)  # a split cache can copy whole rows only
    # Rows whose rest fits share a batch: that is faster than one after the other.
    last, waiting = [None] * n, []

    def flush():
        r.decode([e for row in waiting for e in
                  [(t, shared + j, row, shared + j + 1 == len(prompts[row])) for j, t in enumerate(prompts[row][shared:])]])
        place = -1
        for row in waiting:
            place += len(prompts[row]) - shared
            last[row] = draw(row, place)
        waiting.clear()

    for row in range(n):
        rest = len(prompts[row]) - shared
        if rest > 512:
            last[row] = r.fill(row, prompts[row][shared:], shared, lambda place, row=row: draw(row, place))
            continue
        if waiting and rest + sum(len(prompts[x]) - shared for x in waiting) > 512:
            flush()
        waiting.append(row)
    if waiting:
        flush()
    begun = w.mark()
    for step in range(new - 1):
        r.decode([(last[row], len(prompts[row]) + step, row, True) for row in range(n)])
        last = [draw(row, row) for row in range(n)]
    end = w.mark()
    for c in samplers:
        L.llama_sampler_free(c)
    r.close()
    return start, begun, end


def main():
    g = w.GENERATE
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    w.sizes(a, g["rows"], g["prompt"], g["new"])
    a.add_argument("--shared", type=int, default=0)
    a.add_argument("--cache", choices=["unified", "split"], default="unified")
    a.add_argument("--temperature", type=float, default=g["temperature"])
    a.add_argument("--top-p", type=float, default=g["top_p"])
    o = a.parse_args()
    o.longest = -(-(o.prompt + o.new) // 256) * 256
    if not os.environ.get("LLAMA_LOG"):
        L.llama_log_set(silent, ctypes.c_void_p(0))
    L.llama_backend_init()
    model = L.llama_model_load_from_file(o.model.encode(), L.llama_model_default_params())
    if not model:
        raise SystemExit(f"generate_llama: llama.cpp cannot load {o.model}")
    vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
    generate(model, w.prompts(min(o.rows, 2), min(o.prompt, 16), 0, vocab), 0, 4, o)  # warm-up
    prompts = w.prompts(o.rows, o.prompt, o.shared, vocab)
    w.reset_peak()
    start, begun, end = generate(model, prompts, o.shared, o.new, o)
    w.report("generate", o.rows * o.new, start, end, decode_tokens=o.rows * (o.new - 1), decode_seconds=end[0] - begun[0],
             cache=o.cache, version=VERSION, features=L.llama_print_system_info().decode())


if __name__ == "__main__":
    main()
