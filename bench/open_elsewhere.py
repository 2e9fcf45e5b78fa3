#!/usr/bin/env python3
"""Opens every file of an export in the tool that it is for. One line a check; exit status 1 if any fails.

    character export captain --out captain-files --format all
    python open_elsewhere.py --export captain-files --model SmolLM2-135M-Instruct.Q4_1.gguf \
        --binary bin/character --data .character --id captain

  checksums      SHA256SUMS of the export and of every folder in it
  weights        safetensors/ is the base plus both adapters, rounded once, matrix by matrix (torch)
  transformers   safetensors/ and safetensors-f32/ load with the Auto classes; tokens, log-probs and greedy answers are ours
  llama.cpp      gguf-bf16, gguf-q8_0, and gguf-lora on a bf16 file of the base (llama-cpp-python): the same
  tables         data/ and the JSON lines in datasets, pyarrow, DuckDB and pandas: the same rows in all of them
  trl            a step of DPOTrainer and of SFTTrainer on safetensors/ with data/, both unmodified

--model is the base: a GGUF file or a folder. Ours are the program's own numbers (--binary, run with --data and --id): its
adapters stand beside the base in float32. A tool that is not installed is a failure; leave it out with --skip. The
environment is made by bench/setup.sh DIR --llama.

What may differ. A weight that is rounded to nearest is off by a share u of itself at most: u/sqrt(3) in the mean square,
and so is every element of a product. The errors of the 7 matrices of L layers add as squares and reach the logits as that
share of their spread s; a log-prob is the difference of two such numbers. So log-probs of tokens may differ by
u/sqrt(3) * sqrt(7L) * s * sqrt(2) in the mean square; s is measured, as the spread of the log-probs. u is 2^-8 for bf16,
and 3/254 for q8_0, whose steps are 1/127 of the greatest of 32 weights, some three times their spread. llama.cpp also
rounds what the matrices are multiplied with, to bf16 or q8_0: as much again, so sqrt(2) times the bound. Greedy answers
must be equal up to a token that the tool itself holds for as likely as ours within eight bounds (either log-prob may be off
by four): after such a near tie two texts go their own ways, and the line says so. safetensors-f32 rounds nothing: there only
the order of sums may differ, 1e-4 nats a token.
"""

import argparse
import glob
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import traceback
import warnings

os.environ.setdefault("TQDM_DISABLE", "1")
warnings.filterwarnings("ignore", category=FutureWarning)
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference"))

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import models

GROUPS = ["checksums", "weights", "transformers", "llama", "tables", "trl"]
ROUNDING = {"f32": 0.0, "bf16": 2.0 ** -8, "q8_0": 3 / 254}
SUMS = 1e-4  # nats a token that the order of sums in float32 may make
PROMPTS = ["Who are you?", "What did you do this morning?", "Tell me about the sea.", "How do I boil an egg?", "I feel lonely today."]
failures = 0


def check(name, fn, *args):
    """Runs one check and prints its line. A check returns what it saw, or raises."""
    global failures
    try:
        print(f"ok    {name}: {fn(*args)}", flush=True)
    except Exception as e:  # noqa: BLE001 - every failure of a peer is a finding, none may stop the other checks
        failures += 1
        print(f"FAIL  {name}: {type(e).__name__}: {e}", flush=True)
        traceback.print_exc()


def need(condition, message):
    if not condition:
        raise AssertionError(message)


def checksums(o):
    seen = 0
    for sums in sorted(glob.glob(os.path.join(o.export, "**", "SHA256SUMS"), recursive=True)):
        for line in open(sums, encoding="utf-8").read().splitlines():
            want, name = line.split("  ", 1)
            got = hashlib.sha256()
            with open(os.path.join(os.path.dirname(sums), name), "rb") as f:
                while block := f.read(1 << 20):
                    got.update(block)
            got = got.hexdigest()
            need(got == want, f"{name} has sha256 {got}, {sums} says {want}")
            seen += 1
    need(seen, "no SHA256SUMS")
    return f"{seen} files"


# --- what ours says ------------------------------------------------------------


class Ours:
    """Rows of the export's own pairs with the program's log-probs, and its greedy answers."""

    def __init__(self, o, tok):
        table = os.path.join(o.export, "data", "dpo", "train-00000-of-00001.parquet")
        import pyarrow.parquet as pq

        self.rows, self.tok = [], tok
        asked = []
        for r in pq.read_table(table).to_pylist()[: o.rows]:
            for side in ("chosen", "rejected"):
                asked.append({"messages": r["prompt"], "response": r[side][0]["content"]})
        scored = self.run(o, "score", asked)
        for a, s in zip(asked, scored):
            ids, mask = models.encode_chat(tok, a["messages"] + [{"role": "assistant", "content": a["response"]}])
            last = len(mask) - 1 - mask[::-1].index(0)  # only the final answer counts
            need(len(ids) - last - 1 == s["tokens"], f"{s['tokens']} tokens, the exported tokenizer has {len(ids) - last - 1}")
            self.rows.append((ids, last + 1, s["logprob"]))
        prompts = [{"prompt": p} for p in PROMPTS]
        self.answers = [a["response"] for a in self.run(
            o, "generate", prompts, "--temperature", "0", "--repetition-penalty", "1", "--max-tokens", str(o.new))]

    def run(self, o, verb, rows, *more):
        with tempfile.TemporaryDirectory() as d:
            source, target = os.path.join(d, "in.jsonl"), os.path.join(d, "out.jsonl")
            with open(source, "w", encoding="utf-8") as f:
                f.writelines(json.dumps(r) + "\n" for r in rows)
            subprocess.run([o.binary, verb, "--data", o.data, "--id", o.id, "--in", source, "--out", target, *more],
                           check=True, stdout=sys.stderr)
            return [json.loads(line) for line in open(target, encoding="utf-8") if line.strip()]

    def prompt(self, text):
        return self.tok(self.tok.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True),
                        add_special_tokens=False)["input_ids"]

    def compare(self, o, layers, u, logprobs, name):
        """logprobs(ids) gives log P of every next token: [len(ids)-1, vocabulary] as float32."""
        differences, values, n = [], [], 0
        for ids, start, want in self.rows:
            lp = logprobs(ids)
            each = lp[torch.arange(start - 1, len(ids) - 1), torch.tensor(ids[start:])].double()
            values.append(each)
            n += len(each)
            differences.append((each.sum().item() - want) / len(each))
        spread = torch.cat(values).std().item()
        bound = u / math.sqrt(3) * math.sqrt(7 * layers) * spread * math.sqrt(2) + SUMS
        rms = math.sqrt(sum(d * d for d in differences) / len(differences))
        need(rms <= bound, f"{name}: rows differ by {rms:.4f} nats a token in the mean square, allowed {bound:.4f}")
        return f"{len(self.rows)} rows, {n} tokens: log-probs differ by {rms:.4f} nats a token (allowed {bound:.4f})", bound

    def greedy(self, bound, generate, logprobs, name):
        """generate(ids, n) gives the tool's tokens after a prompt. Texts are compared, as a text has more than one spelling in tokens."""
        same, ties = 0, []
        texts = [self.tok.decode([i]) for i in range(len(self.tok))]
        for text, ours in zip(PROMPTS, self.answers):
            prompt = self.prompt(text)
            n = len(self.tok(ours, add_special_tokens=False)["input_ids"])
            got = generate(prompt, n)
            got = got[: next((i for i, t in enumerate(got) if t == self.tok.eos_token_id), len(got))]
            at = next((i for i in range(len(got)) if not ours.startswith(self.tok.decode(got[: i + 1]))), len(got))
            rest = ours[len(self.tok.decode(got[:at])):]
            if not rest or at == n:
                same += 1
                continue
            theirs = got[at] if at < len(got) else self.tok.eos_token_id
            lp = logprobs(prompt + got[:at] + [theirs])[-1]
            mine = max((i for i, t in enumerate(texts) if t and rest.startswith(t)), key=lambda i: lp[i])
            gap = (lp[theirs] - lp[mine]).item()
            need(gap <= 8 * bound, f"{name}: {text!r}: token {at} is {texts[theirs]!r}, ours is {texts[mine]!r}, "
                                   f"{gap:.3f} nats less likely (allowed {8 * bound:.3f})")
            ties.append(f"{text!r} at token {at}, {gap:.3f} nats apart")
        return f"{same} of {len(PROMPTS)} greedy answers are equal" + (f"; near ties: {'; '.join(ties)}" if ties else "")


# --- safetensors ---------------------------------------------------------------


def base_state(o):
    """The base's weights as ours uses them: bf16 values in float32."""
    if o.model.endswith(".gguf"):
        return models.from_gguf(o.model).state_dict()
    return models.round_bf16_but_norms(AutoModelForCausalLM.from_pretrained(o.model, dtype=torch.float32)).state_dict()


def weights(o):
    base, folder = base_state(o), os.path.join(o.export, "character")
    config = json.load(open(os.path.join(folder, "adapter_config.json"), encoding="utf-8"))
    scale, n, off, total = config["lora_alpha"] / config["r"], 0, 0, 0
    with safe_open(os.path.join(folder, "adapter_model.safetensors"), "pt") as a:
        for shard in sorted(glob.glob(os.path.join(o.export, "safetensors", "*.safetensors"))):
            with safe_open(shard, "pt") as f:
                for name in f.keys():
                    want, got = base[name].double(), f.get_tensor(name)
                    low = f"base_model.model.{name.removesuffix('.weight')}.lora_"
                    size = want.abs()
                    if low + "A.weight" in a.keys():
                        A, B = a.get_tensor(low + "A.weight").double(), a.get_tensor(low + "B.weight").double()
                        want, size = want + scale * (B @ A), size + scale * (B.abs() @ A.abs())
                    # nearest bf16, but for what summing in float32 can do
                    allowed = want.abs() * 2.0 ** -8 + size * (config["r"] + 2) * 2.0 ** -24
                    need(((got.double() - want).abs() <= allowed).all(), f"{name} is not the merged weight")
                    off += (got != want.to(torch.bfloat16)).sum().item()
                    total += got.numel()
                    n += 1
    return f"{n} tensors are base + adapters, rounded once; {off} of {total} weights are the other neighbour of a tie in float32"


def torch_logprobs(model):
    def run(ids):
        with torch.no_grad():
            return torch.log_softmax(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].float(), dim=-1)
    return run


def in_transformers(o, ours, folder, kind):
    model = AutoModelForCausalLM.from_pretrained(os.path.join(o.export, folder), dtype=torch.float32).eval()
    line, bound = ours.compare(o, o.layers, ROUNDING[kind], torch_logprobs(model), folder)

    def generate(ids, n):
        out = model.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=n, do_sample=False)
        return out[0, len(ids):].tolist()

    return f"{line}; {ours.greedy(bound, generate, torch_logprobs(model), folder)}"


# --- llama.cpp -----------------------------------------------------------------


def in_llama(o, ours, path, kind, lora=None):
    import llama_cpp
    import numpy as np

    model = llama_cpp.Llama(path, n_ctx=1024, n_threads=o.threads, n_threads_batch=o.threads, logits_all=True, verbose=False,
                            **({"lora_path": lora} if lora else {}))
    for text in ("Ahoy, matey! 12345 naïve  spaces\n", PROMPTS[0]):
        need(model.tokenize(text.encode(), add_bos=False, special=False) == ours.tok(text, add_special_tokens=False)["input_ids"],
             f"the tokens of {text!r} differ")
    rendered = ours.tok.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True)
    need(model.metadata.get("tokenizer.chat_template"), "no chat template")
    need(model.tokenize(rendered.encode(), add_bos=False, special=True) == ours.tok(rendered, add_special_tokens=False)["input_ids"],
         "the tokens of a chat differ")

    def logprobs(ids):
        model.reset()
        model.eval(ids)
        return torch.log_softmax(torch.from_numpy(np.array(model.scores[: len(ids) - 1], dtype=np.float32)), dim=-1)

    def generate(ids, n):
        model.reset()
        out = []
        for token in model.generate(ids, temp=0.0, repeat_penalty=1.0):
            out.append(token)
            if len(out) == n or token == model.token_eos():
                return out
        return out

    line, bound = ours.compare(o, o.layers, ROUNDING[kind] * math.sqrt(2), logprobs, kind)
    return f"{line}; {ours.greedy(bound, generate, logprobs, kind)}"


def one(pattern):
    found = glob.glob(pattern)
    need(len(found) == 1, f"{pattern}: {len(found)} files")
    return found[0]


# --- tables --------------------------------------------------------------------


def tables(o):
    import datasets
    import duckdb
    import pandas
    import pyarrow.parquet as pq

    said = []
    for name, column in (("dpo", "prompt"), ("introspection", "messages")):
        path = os.path.join(o.export, "data", name, "train-00000-of-00001.parquet")
        want = [[(m["role"], m["content"]) for m in r[column]] for r in pq.read_table(path).to_pylist()]
        hf = datasets.load_dataset(os.path.dirname(path), split="train", cache_dir=os.path.join(o.work, "cache"))
        duck = duckdb.connect().execute(f"select {column} from read_parquet(?)", [path]).fetchall()
        frames = pandas.read_parquet(path)[column]
        for tool, got in (("datasets", hf[column]), ("DuckDB", [r[0] for r in duck]), ("pandas", list(frames))):
            got = [[(m["role"], m["content"]) for m in row] for row in got]
            need(got == want, f"{name}: {tool} reads other rows than pyarrow")
        need(want, f"{name} is empty")
        lines = one(os.path.join(o.export, f"*_{name}.jsonl"))
        text = [json.loads(line) for line in open(lines, encoding="utf-8")]
        counts = {"json": len(text), "pandas": len(pandas.read_json(lines, lines=True)),
                  "datasets": len(datasets.load_dataset("json", data_files=lines, split="train", cache_dir=os.path.join(o.work, "cache"))),
                  "DuckDB": duckdb.connect().execute("select count(*) from read_json_auto(?)", [lines]).fetchone()[0]}
        need(set(counts.values()) == {len(want)}, f"{os.path.basename(lines)}: rows {counts}, Parquet has {len(want)}")
        said.append(f"{len(want)} rows of {name}")
    return f"{' and '.join(said)}, as Parquet and as JSON lines, are the same in datasets, pyarrow, DuckDB and pandas"


# --- TRL -----------------------------------------------------------------------


def trl_step(o, tok, kind):
    import datasets
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    trainer, config, name = (DPOTrainer, DPOConfig, "dpo") if kind == "DPOTrainer" else (SFTTrainer, SFTConfig, "introspection")
    rows = datasets.load_dataset(os.path.join(o.export, "data", name), split="train", cache_dir=os.path.join(o.work, "cache"))
    model = AutoModelForCausalLM.from_pretrained(os.path.join(o.export, "safetensors"), dtype=torch.float32)
    t = trainer(model=model, train_dataset=rows, processing_class=tok, peft_config=models.lora(8, 8), args=config(
        output_dir=os.path.join(o.work, kind), per_device_train_batch_size=2, max_steps=1, learning_rate=1e-4, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to=[], logging_steps=1, save_strategy="no", disable_tqdm=True, seed=0))
    t.train()
    loss = next(h["loss"] for h in t.state.log_history if "loss" in h)
    need(math.isfinite(loss), f"the loss is {loss}")
    need(kind != "DPOTrainer" or abs(loss - math.log(2)) < 1e-3, f"the first loss is {loss}, it must be ln 2")
    return f"first loss {loss:.4f}"


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--export", required=True, help="folder of `character export --format all`")
    a.add_argument("--model", required=True, help="the base model of the run: a GGUF file or a folder")
    a.add_argument("--binary", required=True, help="the character program")
    a.add_argument("--data", default=".character", help="its data directory")
    a.add_argument("--id", required=True, help="the run")
    a.add_argument("--rows", type=int, default=6, help="pairs whose answers are scored")
    a.add_argument("--new", type=int, default=40, help="tokens of a greedy answer")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--skip", action="append", default=[], choices=GROUPS)
    o = a.parse_args()
    o.export, o.model = os.path.abspath(o.export), os.path.abspath(o.model)
    return o


def main():
    o = arguments()
    torch.set_num_threads(o.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    on = [g for g in GROUPS if g not in o.skip]
    with tempfile.TemporaryDirectory() as o.work:
        if "checksums" in on:
            check("checksums", checksums, o)
        if "weights" in on:
            check("weights in safetensors", weights, o)
        if not {"transformers", "llama", "trl"}.isdisjoint(on):
            tok = AutoTokenizer.from_pretrained(os.path.join(o.export, "safetensors"))
        if "transformers" in on or "llama" in on:
            from transformers import AutoConfig

            o.layers = AutoConfig.from_pretrained(os.path.join(o.export, "safetensors")).num_hidden_layers
            ours = Ours(o, tok)
        if "transformers" in on:
            for folder, kind in (("safetensors", "bf16"), ("safetensors-f32", "f32")):
                check(f"{folder} in transformers", in_transformers, o, ours, folder, kind)
        if "llama" in on:
            for kind in ("bf16", "q8_0"):
                check(f"gguf-{kind} in llama.cpp", lambda: in_llama(o, ours, one(os.path.join(o.export, f"gguf-{kind}", "*.gguf")), kind))

            def lora():
                sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers"))
                import make_gguf

                need(o.model.endswith(".gguf"), "needs --model as a GGUF file")
                base = os.path.join(o.work, "base.gguf")
                make_gguf.rewrite(o.model, "bf16", base)
                path = [p for p in glob.glob(os.path.join(o.export, "gguf-lora", "*-lora.gguf")) if not p.endswith("-dpo-lora.gguf")]
                need(len(path) == 1, f"{len(path)} adapters")
                return in_llama(o, ours, base, "bf16", path[0])

            check("gguf-lora in llama.cpp", lora)
        if "tables" in on:
            check("tables", tables, o)
        if "trl" in on:
            for kind in ("DPOTrainer", "SFTTrainer"):
                check(kind, trl_step, o, tok, kind)
    print(f"{failures} checks failed" if failures else "all checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
