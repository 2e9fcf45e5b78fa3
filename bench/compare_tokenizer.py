#!/usr/bin/env python3
"""Our tokenizer against Hugging Face's (Rust) on the same texts, in turn: MB a CPU second, and whether every id is equal.

    python bench/compare_tokenizer.py --model SmolLM2-135M-Instruct.Q4_1.gguf --qwen3 qwen3/tokenizer.json
    python bench/compare_tokenizer.py --model ... --times 1 --turns 1        # to see that it runs, and is exact

Run with the Python that bench/setup.sh made. The texts are files that everybody has, cut at line ends into documents of
about --document bytes, encoded one after the other: constitutions, prompts, recorded answers and guides (english), our Go
sources (code), seeded words of twelve scripts (scripts), and with --cases FOLDER/tokenizers/cases.jsonl.gz the recorded
cases (cases; default folder: CHARACTER_TESTDATA). A text whose ids differ is named, and the exit status is 1.
`sh lm/tokenizer/testdata/get.sh FOLDER` fetches Qwen3's tokenizer.json (default: CHARACTER_TEST_QWEN3_TOKENIZER); with
llama3 behind it Llama 3's, under Meta's licence (default: CHARACTER_TEST_LLAMA3_TOKENIZER).

CPU seconds are those of the whole process, its garbage collection included. Both sides remember words they have met, so
the first pass over a text is given beside the median of the later ones.
"""

import glob
import gzip
import json
import os
import random
import sys

import sidebyside as s

# First and last letter of alphabets, enough of each to make words that look like text to a tokenizer.
SCRIPTS = {"latin": "aàéîõüßøžő", "greek": (0x3B1, 0x3C9), "cyrillic": (0x430, 0x44F), "hebrew": (0x5D0, 0x5EA),
           "arabic": (0x627, 0x64A), "devanagari": (0x915, 0x939), "thai": (0xE01, 0xE2E), "georgian": (0x10D0, 0x10F0),
           "hiragana": (0x3041, 0x3093), "han": (0x4E00, 0x5E00), "hangul": (0xAC00, 0xB400), "emoji": (0x1F600, 0x1F64F)}


def scripts(size):
    """About size bytes of sentences, each of words of one script."""
    rng, out, total = random.Random(1), [], 0
    while total < size:
        script = rng.choice(list(SCRIPTS))
        a = SCRIPTS[script]
        letters = a if isinstance(a, str) else [chr(c) for c in range(a[0], a[1] + 1)]
        words = ["".join(rng.choice(letters) for _ in range(rng.randint(1, 9))) for _ in range(rng.randint(3, 15))]
        joint = "" if script in ("han", "hiragana", "thai") else " "
        out.append(joint.join(words) + rng.choice([".", "!", "。", "?", ", 42.", "…"]) + "\n")
        total += len(out[-1].encode())
    return "".join(out)


def documents(text, size):
    """Cuts text at line ends into pieces of at least size bytes; a size of 0 keeps it whole."""
    if size == 0:
        return [text]
    out, piece, n = [], [], 0
    for line in text.splitlines(keepends=True):
        piece.append(line)
        n += len(line.encode())
        if n >= size:
            out.append("".join(piece))
            piece, n = [], 0
    return out + ["".join(piece)] * bool(piece)


def groups(o):
    def files(*patterns):
        names = sorted(f for p in patterns for f in glob.glob(os.path.join(s.ROOT, p), recursive=True))
        if not names:
            s.fail(f"no file matches {', '.join(patterns)} under {s.ROOT}")
        return "".join(open(f, encoding="utf-8").read() for f in names)

    texts = {"english": files("*.md", "docs/**/*.md", "constitution/library/**/*.*"), "code": files("lm/**/*.go", "tensor/**/*.go", "workflows/*.go"),
             "scripts": scripts(500_000)}
    found = [{"name": k, "documents": documents(t, o.document)} for k, t in texts.items()]
    if o.cases:
        path = os.path.join(o.cases, "tokenizers", "cases.jsonl.gz")
        if not os.path.exists(path):
            s.fail(f"--cases: {path} does not exist")
        found.append({"name": "cases", "documents": [json.loads(l)["text"] for l in gzip.open(path, "rt", encoding="utf-8")]})
    return found


def rate(group, seconds="cpu_seconds"):
    """MB a second."""
    return group["bytes"] / group[seconds] / 1e6


def main():
    a = s.parser(__doc__, threads=1)
    a.add_argument("--qwen3", default=os.environ.get("CHARACTER_TEST_QWEN3_TOKENIZER"), help="Qwen3's tokenizer.json")
    a.add_argument("--llama3", default=os.environ.get("CHARACTER_TEST_LLAMA3_TOKENIZER"), help="Llama 3's tokenizer.json")
    a.add_argument("--cases", default=os.environ.get("CHARACTER_TESTDATA"), help="folder with tokenizers/cases.jsonl.gz")
    a.add_argument("--document", type=int, default=4096, help="bytes of a document; 0 = a whole text at once")
    a.add_argument("--turns", type=int, default=5, help="passes over a text in a round; their median counts")
    o = a.parse_args()
    s.check(o)
    s.need("tokenizers", "transformers", "torch", "gguf", "numpy")
    m = s.machine(o, "tokenizers")
    files = {"smollm2": o.model}
    for name, path in (("qwen3", o.qwen3), ("llama3", o.llama3)):
        if path and not os.path.isfile(path):
            s.fail(f"--{name} {path}: no such file; `sh lm/tokenizer/testdata/get.sh FOLDER {name}` fetches it")
        if path:
            files[name] = os.path.abspath(path)
        else:
            print(f"note: {name} is left out; `sh lm/tokenizer/testdata/get.sh FOLDER {name}` fetches its tokenizer.json for --{name}", file=sys.stderr)
    texts = os.path.join(s.scratch(), "texts.jsonl")
    with open(texts, "w", encoding="utf-8") as f:
        f.writelines(json.dumps(g, ensure_ascii=False) + "\n" for g in groups(o))
    ours = s.build("bench/peers/encode")
    jobs = {name: {"ours": [ours, "-tokenizer", path, "-texts", texts, "-turns", str(o.turns)],
                   "peer": s.peer("encode_hf.py") + ["--tokenizer", path, "--texts", texts, "--turns", str(o.turns)]}
            for name, path in files.items()}
    seen = s.rounds(o, jobs, lambda r: ", ".join(f"{g['name']} {rate(g):.1f} MB/s" for g in r["groups"]))

    out, rows, wrong = {}, [], []
    for name, sides in seen.items():
        for i, g in enumerate(sides["ours"][0]["groups"]):
            key = f"{name} {g['name']}"
            us, them = (s.median(sides[x], lambda r: rate(r["groups"][i])) for x in ("ours", "peer"))
            first = [s.median(sides[x], lambda r: rate(r["groups"][i], "first_cpu_seconds")) for x in ("ours", "peer")]
            equal = len({r["groups"][i]["sha256"] for x in sides.values() for r in x}) == 1
            if not equal:
                wrong.append(f"{key}: {g['tokens']} ids, the peer has {sides['peer'][0]['groups'][i]['tokens']}")
            out[key] = {"bytes": g["bytes"], "tokens": g["tokens"], "ours_mb_s": us, "peer_mb_s": them, "ratio": s.ratio(us, them),
                        "ours_first_mb_s": first[0], "peer_first_mb_s": first[1], "first_ratio": s.ratio(*first), "equal": equal}
            rows.append([key, g["bytes"] / 1e6, g["tokens"], us, them, s.ratio(us, them), *first, s.ratio(*first), "equal" if equal else "DIFFER"])
    columns = [("text", ""), ("MB", ".2f"), ("ids", ""), ("ours MB/s", ".1f"), ("tokenizers", ".1f"), ("ratio", ".2f"),
               ("first: ours", ".1f"), ("tokenizers", ".1f"), ("ratio", ".2f"), ("all ids", "")]
    s.table(f"MB a CPU second, medians of {o.times}, one thread, documents of {o.document} bytes", columns, rows)
    s.finish(o, m, out)
    for w in wrong:
        print(f"compare_tokenizer.py: the ids differ in {w}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
