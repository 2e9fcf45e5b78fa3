#!/usr/bin/env python3
"""The whole method with transformers + TRL, from a constitution alone: the peer of the demo.

    python method.py --model SmolLM2-135M-Instruct.Q4_1.gguf --constitution captain.json \
        --prompts prompts.jsonl --heldout captain-answers.jsonl [--json out.json] [--samples out.jsonl]

Stages, each timed: teacher answers (the model itself with the constitution's system prompt and example turns),
student answers (no system prompt), DPO, and with --reflections N also self-written answers and SFT. Then the
held-out gain: mean log-prob a token of recorded in-character answers, asked with no constitution.

constitution: {"system": text, "examples": [{"prompt", "response"}], "reflections": [text]}.
prompts: JSONL rows with "prompt", or one prompt a line. heldout: JSONL rows {"prompt", "chosen"}.
"""

import argparse
import json
import tempfile
import time

import torch
import transformers
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import losses
import models


class GivenIds(DPOTrainer):
    """The trainer with its tokenisation left out: the rows hold ids already."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


def read_prompts(path):
    out = []
    for line in open(path, encoding="utf-8"):
        line = line.strip()
        if line:
            out.append(json.loads(line)["prompt"] if line.startswith("{") else line)
    return out


def context(prompt, constitution=None):
    """Messages before the answer; the constitution adds its system prompt and example turns."""
    if constitution is None:
        return [{"role": "user", "content": prompt}]
    turns = [{"role": "system", "content": constitution["system"]}]
    for e in constitution["examples"]:
        turns += [{"role": "user", "content": e["prompt"]}, {"role": "assistant", "content": e["response"]}]
    return turns + [{"role": "user", "content": prompt}]


def prompt_ids(tok, messages):
    text = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tok(text, add_special_tokens=False)["input_ids"]


def sample(model, tok, contexts, o, new_tokens, penalty, seed):
    """One answer a context: (ids without the end token, ended by itself). Left-padded batches.

    transformers applies the repetition penalty to the tokens of the prompt as well.
    """
    torch.manual_seed(seed)
    ids, out = [prompt_ids(tok, c) for c in contexts], []
    with torch.inference_mode():
        for at in range(0, len(ids), o.gen_batch):
            part = ids[at:at + o.gen_batch]
            width = max(map(len, part))
            x = torch.tensor([[tok.eos_token_id] * (width - len(p)) + p for p in part])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in part])
            y = model.generate(x, attention_mask=mask, do_sample=True, temperature=o.temperature, top_p=o.top_p, top_k=0,
                               repetition_penalty=penalty, max_new_tokens=new_tokens, eos_token_id=tok.eos_token_id,
                               pad_token_id=tok.eos_token_id)[:, width:].tolist()
            for row in y:
                ended = tok.eos_token_id in row
                out.append((row[:row.index(tok.eos_token_id)] if ended else row, ended))
    return out


def score(model, tok, answers, constitution=None):
    """Mean log-prob a token, over all tokens of all answers and their end tokens. answers: [(prompt, answer text)]."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for q, a in answers:
            head = prompt_ids(tok, context(q, constitution))
            tail = tok(a, add_special_tokens=False)["input_ids"] + [tok.eos_token_id]
            lp = losses.response(model, {"tokens": head + tail, "mask": [0] * len(head) + [1] * len(tail)})
            total, count = total + lp.sum().item(), count + len(tail)
    return total / count


def train_args(cls, folder, o, batch, lr, **more):
    return cls(output_dir=folder, per_device_train_batch_size=batch, learning_rate=lr, lr_scheduler_type="constant",
               num_train_epochs=o.epochs, max_steps=o.max_steps or -1, use_cpu=True, bf16=o.bf16,
               gradient_checkpointing=False, report_to=[], logging_steps=1, save_strategy="no", max_length=None,
               disable_tqdm=True, seed=o.seed, **more)


def curve(trainer):
    keys = ("loss", "rewards/margins", "rewards/accuracies")
    return [{k: h[k] for k in keys if k in h} for h in trainer.state.log_history if "loss" in h]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", required=True)
    a.add_argument("--constitution", required=True)
    a.add_argument("--prompts", required=True)
    a.add_argument("--heldout", required=True)
    a.add_argument("--rows", type=int, default=128, help="prompts used")
    a.add_argument("--heldout-rows", type=int, default=48, help="taken from the end of the file")
    a.add_argument("--reflections", type=int, default=0, help="self-written rows for SFT; 0 = no SFT")
    a.add_argument("--temperature", type=float, default=0.7)
    a.add_argument("--top-p", type=float, default=0.95)
    a.add_argument("--penalty", type=float, default=1.05)
    a.add_argument("--new-tokens", type=int, default=72)
    a.add_argument("--gen-batch", type=int, default=16)
    a.add_argument("--epochs", type=float, default=2)
    a.add_argument("--max-steps", type=int, default=0)
    a.add_argument("--bf16", action="store_true", help="bf16 autocast in training")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--seed", type=int, default=0)
    a.add_argument("--json")
    a.add_argument("--samples", help="JSONL of the pairs and of answers after training")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    transformers.utils.logging.set_verbosity_error()
    seconds, out, shown = {}, {}, []

    class Stage:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            self.t = time.perf_counter()

        def __exit__(self, *error):
            seconds[self.name] = time.perf_counter() - self.t
            print(f"{self.name}: {seconds[self.name]:.1f} s", flush=True)

    with Stage("load"):
        tok = models.tokenizer_from_gguf(o.model)
        base = models.from_gguf(o.model)
        base.set_attn_implementation("sdpa")
    constitution = json.load(open(o.constitution, encoding="utf-8"))
    heldout = [json.loads(l) for l in open(o.heldout, encoding="utf-8") if l.strip()][-o.heldout_rows:]
    heldout = [(r["prompt"], r["chosen"]) for r in heldout]
    unseen = {q for q, _ in heldout}
    prompts = [p for p in read_prompts(o.prompts) if p not in unseen][:o.rows]

    with Stage("teacher"):
        chosen = sample(base, tok, [context(p, constitution) for p in prompts], o, o.new_tokens, o.penalty, o.seed)
    keep = [i for i, (ids, ended) in enumerate(chosen) if ended and len(ids) > 3]
    out["prompts"], out["kept"] = len(prompts), len(keep)
    with Stage("student"):
        rejected = sample(base, tok, [context(prompts[i]) for i in keep], o, o.new_tokens, 1.0, o.seed + 1)
    rows, plain = [], []
    for i, (ids, ended) in zip(keep, rejected):
        end = [tok.eos_token_id]
        rows.append({"prompt_ids": prompt_ids(tok, context(prompts[i])), "chosen_ids": chosen[i][0] + end,
                     "rejected_ids": ids + (end if ended else [])})
        if ended:
            plain.append((prompts[i], tok.decode(ids)))
        shown.append({"prompt": prompts[i], "chosen": tok.decode(chosen[i][0]), "rejected": tok.decode(ids)})
    out["tokens_a_pair"] = sum(2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"])
                               for r in rows) / max(len(rows), 1)
    if len(rows) < 4:
        raise SystemExit(f"only {len(rows)} of {len(prompts)} teacher answers ended by themselves: too few to train on")

    with Stage("score base"):
        out["base"] = score(base, tok, heldout)
        out["constitution"] = score(base, tok, heldout, constitution)
        out["plain_base"] = score(base, tok, plain) if plain else None
    with tempfile.TemporaryDirectory() as tmp:
        with Stage("dpo"):
            t = GivenIds(model=base, args=train_args(DPOConfig, tmp, o, 4, 2e-4, beta=0.1, loss_type=["sigmoid", "sft"],
                                                     loss_weights=[1.0, 0.2]), processing_class=tok,
                         peft_config=models.lora(32, 32), train_dataset=Dataset.from_list(rows))
            t.train()
        out["dpo_steps"], out["dpo_curve"] = t.state.global_step, curve(t)
        model = t.model.eval()
        with Stage("score dpo"):
            out["dpo"] = score(model, tok, heldout)
            out["plain_dpo"] = score(model, tok, plain) if plain else None
        if o.reflections:
            with Stage("reflections"):
                ask = [constitution["reflections"][i % len(constitution["reflections"])] for i in range(o.reflections)]
                made = sample(model, tok, [context(q) for q in ask], o, 128, 1.1, o.seed + 2)
            sft = []
            for q, (ids, ended) in zip(ask, made):
                if ended and len(ids) > 3:
                    head = prompt_ids(tok, context(q))
                    sft.append({"input_ids": head + ids + [tok.eos_token_id],
                                "completion_mask": [0] * len(head) + [1] * (len(ids) + 1)})
                    shown.append({"prompt": q, "reflection": tok.decode(ids)})
            out["reflections"] = len(sft)
            with Stage("sft"):
                merged = model.merge_and_unload()
                t = SFTTrainer(model=merged, args=train_args(SFTConfig, tmp, o, 8, 2e-5, completion_only_loss=True),
                               processing_class=tok, peft_config=models.lora(64, 64), train_dataset=Dataset.from_list(sft))
                t.train()
            out["sft_steps"], out["sft_curve"] = t.state.global_step, curve(t)
            model = t.model.eval()
            with Stage("score final"):
                out["final"] = score(model, tok, heldout)
                out["plain_final"] = score(model, tok, plain) if plain else None
    with Stage("answers"):
        o.temperature = 0.3
        ask = [q for q, _ in heldout][:8]
        for q, (ids, _) in zip(ask, sample(model, tok, [context(q) for q in ask], o, o.new_tokens, 1.1, o.seed + 3)):
            shown.append({"prompt": q, "after": tok.decode(ids)})
            print(f"  {q}\n    {tok.decode(ids)!r}")

    out["gain"] = out["dpo"] - out["base"]
    out["internalisation_index"] = out["gain"] / (out["constitution"] - out["base"])
    out["seconds"], out["total_seconds"] = seconds, sum(seconds.values())
    print(f"kept {out['kept']} of {out['prompts']}; held-out log-prob a token: base {out['base']:.3f}, with constitution "
          f"{out['constitution']:.3f}, after DPO {out['dpo']:.3f} (gain {out['gain']:+.3f}, "
          f"index {out['internalisation_index']:.2f}); total {out['total_seconds']:.0f} s")
    line = json.dumps(out)
    print(line)
    if o.json:
        with open(o.json, "w") as f:
            f.write(line + "\n")
    if o.samples:
        with open(o.samples, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in shown)


if __name__ == "__main__":
    main()
