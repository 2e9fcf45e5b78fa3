#!/usr/bin/env python3
"""Shows that an exported run works with the usual Python tools, unmodified. One line a check; exit status 1 if any fails.

    python interop.py --model SmolLM2-135M-Instruct.Q4_1.gguf --export demo/captain \
        --binary bin/character --data .character --id captain

  files       SHA256SUMS holds
  adapters    dpo/ and character/ load in PEFT on the same weights, every matrix in its place
  scores      `character score` agrees with transformers' own summed log-probs, for base, dpo and character
  datasets    data/dpo and data/introspection load with Hugging Face datasets
  trl         one step of DPOTrainer and of SFTTrainer runs on them

The weights are rounded to bf16, as our engine uses them, and kept in fp32. Scores come from --binary (it is run with
--data and --id on answers of the export's own pairs) or from files: --scores base=FILE dpo=FILE character=FILE.
The environment is made by bench/setup.sh.
"""

import argparse
import copy
import functools
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
import transformers
from datasets import load_dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import losses
import models

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


def files(o):
    lines = open(os.path.join(o.export, "SHA256SUMS"), encoding="utf-8").read().splitlines()
    need(lines, "SHA256SUMS is empty")
    for line in lines:
        want, name = line.split("  ", 1)
        got = hashlib.sha256(open(os.path.join(o.export, name), "rb").read()).hexdigest()
        need(got == want, f"{name} has sha256 {got}, SHA256SUMS says {want}")
    return f"{len(lines)} files match SHA256SUMS"


@functools.lru_cache(maxsize=1)
def read(path):
    return models.from_gguf(path)


def base(o):
    """A fresh copy: PEFT changes the model that it wraps."""
    return copy.deepcopy(read(o.model))


def with_adapter(o, name):
    return PeftModel.from_pretrained(base(o), os.path.join(o.export, name),
                                     autocast_adapter_dtype=False).eval()


def adapter(o, tok, name):
    """PEFT silently ignores keys that it does not know, so the loaded parameters are compared with the file's."""
    stored = load_file(os.path.join(o.export, name, "adapter_model.safetensors"))
    model = with_adapter(o, name)
    loaded = models.adapter_params(model, "default")
    need(set(stored) == set(loaded), f"keys differ: {sorted(set(stored) ^ set(loaded))[:4]}")
    for key, value in stored.items():
        need(torch.equal(value.float(), loaded[key].detach()), f"{key} was not loaded as it is stored")
    ids = tok("Ahoy, who are you?", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        on = losses.logits(model, ids)
        with model.disable_adapter():
            off = losses.logits(model, ids)
    need(torch.isfinite(on).all(), "the logits are not finite")
    change = (on - off).abs().max().item()
    need(change > 0, "the adapter changes nothing")
    c = model.peft_config["default"]
    return f"{len(stored)} matrices of rank {c.r}, alpha {c.lora_alpha}; greatest change of a logit {change:.3f}"


def rows_to_score(o, path):
    """Both answers of the first pairs."""
    d = dataset(o, "dpo")
    with open(path, "w", encoding="utf-8") as f:
        for r in d.select(range(min(o.rows, len(d)))):
            for side in ("chosen", "rejected"):
                f.write(json.dumps({"messages": r["prompt"], "response": r[side][0]["content"]}) + "\n")


def scores(o, tok, name, folder):
    path = o.scores.get(name)
    if path is None:
        path = os.path.join(folder, f"scores_{name}.jsonl")
        rows = os.path.join(folder, "rows.jsonl")
        rows_to_score(o, rows)
        subprocess.run([o.binary, "score", "--data", o.data, "--id", o.id, "--model", name, "--in", rows, "--out", path],
                       check=True, stdout=sys.stderr)
    model = base(o) if name == "base" else with_adapter(o, name)
    worst, rows = 0.0, [json.loads(line) for line in open(path, encoding="utf-8") if line.strip()]
    need(rows, f"{path} has no rows")
    for i, r in enumerate(rows):
        before = r.get("messages") or [{"role": "user", "content": r["prompt"]}]
        ids, mask = models.encode_chat(tok, before + [{"role": "assistant", "content": r["response"]}])
        last = len(mask) - 1 - mask[::-1].index(0)  # only the final answer counts
        mask = [0] * (last + 1) + [1] * (len(mask) - last - 1)
        with torch.no_grad():
            value = losses.response(model, {"tokens": ids, "mask": mask}).double().sum().item()
        n = sum(mask)
        need(n == r["tokens"], f"row {i}: {r['tokens']} tokens, transformers has {n}")
        difference = abs(value - r["logprob"]) / n
        need(difference <= o.tolerance, f"row {i}: {r['logprob']:.5f}, transformers has {value:.5f} over {n} tokens")
        worst = max(worst, difference)
    return f"{len(rows)} rows agree; greatest difference {worst:.1e} nats a token, allowed {o.tolerance:g}"


def dataset(o, name):
    return load_dataset(os.path.join(o.export, "data", name), split="train", cache_dir=os.path.join(o.work, "cache"))


def loads(o, name, columns):
    d = dataset(o, name)
    need(len(d) > 0, "no rows")
    need(d.column_names[: len(columns)] == columns, f"columns {d.column_names}, the first must be {columns}")
    for i, row in enumerate(d):
        for c in columns:
            need(row[c] and all(m["role"] in ("system", "user", "assistant") and m["content"] for m in row[c]),
                 f"row {i}: {c} is {row[c]!r}")
    return f"{len(d)} rows, columns {', '.join(d.column_names)}"


def options(cls, o, name, **more):
    return cls(output_dir=os.path.join(o.work, name), per_device_train_batch_size=2, max_steps=1, learning_rate=1e-4,
               use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], logging_steps=1, save_strategy="no",
               disable_tqdm=True, seed=0, **more)


def one_step(trainer):
    trainer.remove_callback(PrinterCallback)  # one line a check is enough
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    loss = next(h["loss"] for h in trainer.state.log_history if "loss" in h)
    need(math.isfinite(loss), f"the loss is {loss}")
    moved = sum(not torch.equal(p.detach(), before[n]) for n, p in trainer.model.named_parameters() if n in before)
    need(moved > 0, "the step changed no parameter")
    return loss, moved


def dpo_step(o, tok):
    t = DPOTrainer(model=base(o), args=options(DPOConfig, o, "dpo"), train_dataset=dataset(o, "dpo"),
                   processing_class=tok, peft_config=models.lora(8, 8))
    loss, moved = one_step(t)
    need(abs(loss - math.log(2)) < 1e-3, f"the first loss is {loss}, it must be ln 2")
    return f"first loss {loss:.4f}, {moved} matrices moved"


def sft_step(o, tok):
    t = SFTTrainer(model=base(o), args=options(SFTConfig, o, "sft"),
                   train_dataset=dataset(o, "introspection"), processing_class=tok, peft_config=models.lora(8, 8))
    loss, moved = one_step(t)
    return f"first loss {loss:.4f}, {moved} matrices moved"


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", required=True, help="the GGUF file of the run")
    a.add_argument("--export", required=True, help="folder of `character export`")
    a.add_argument("--binary", help="the character program")
    a.add_argument("--data", default=".character", help="its data directory")
    a.add_argument("--id", help="the run")
    a.add_argument("--scores", nargs="+", default=[], metavar="MODEL=FILE")
    a.add_argument("--rows", type=int, default=8, help="pairs whose answers are scored with --binary")
    a.add_argument("--tolerance", type=float, default=1e-4, help="nats a token")
    a.add_argument("--threads", type=int, default=2)
    o = a.parse_args()
    o.scores = dict(s.split("=", 1) for s in o.scores)
    o.model, o.export = os.path.abspath(o.model), os.path.abspath(o.export)
    missing = [m for m in ("base", "dpo", "character") if m not in o.scores]
    if missing and not (o.binary and o.id):
        a.error(f"no scores for {', '.join(missing)}: give --scores, or --binary and --id")
    return o


def main():
    o = arguments()
    torch.set_num_threads(o.threads)
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as o.work:
        tok = models.tokenizer_from_gguf(o.model)
        check("files", files, o)
        for name in ("dpo", "character"):
            check(f"{name}/ in PEFT", adapter, o, tok, name)
        for name in ("base", "dpo", "character"):
            check(f"scores of {name}", scores, o, tok, name, o.work)
        check("data/dpo in datasets", loads, o, "dpo", ["prompt", "chosen", "rejected"])
        check("data/introspection in datasets", loads, o, "introspection", ["messages"])
        check("DPOTrainer", dpo_step, o, tok)
        check("SFTTrainer", sft_step, o, tok)
    print(f"{failures} checks failed" if failures else "all checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
