"""Records the tiny random models."""

import copy
import json
import math
import os
import random

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import losses
import models
import trl_check

BETA, NLL = 0.1, 0.2
OPTIONS = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "clip_norm": 1.0,
           "schedule": "constant"}
# Lengths around 32 (a cache page) and 64, two-token rows, several response turns.
PAIR_LENGTHS = [(1, 1, 3), (5, 9, 4), (12, 20, 28), (17, 16, 14)]  # prompt, chosen, rejected
SFT_TURNS = [[3, 5], [4, 3, 2, 6, 1, 2], [30, 35], [1, 1]]  # prompt, response, prompt, response, ...


def make_rows(seed, vocab):
    rng = random.Random(seed)
    ids = lambda n: [rng.randrange(vocab) for _ in range(n)]
    pairs, rows = [], []
    for i, (p, c, r) in enumerate(PAIR_LENGTHS):
        prompt = ids(p)
        pairs.append({"id": f"pair-{i}",
                      "chosen": {"tokens": prompt + ids(c), "mask": [0] * p + [1] * c},
                      "rejected": {"tokens": prompt + ids(r), "mask": [0] * p + [1] * r}})
    for i, turns in enumerate(SFT_TURNS):
        mask = [k % 2 for k, n in enumerate(turns) for _ in range(n)]
        rows.append({"id": f"row-{i}", "tokens": ids(sum(turns)), "mask": mask})
    return pairs, rows


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=None, separators=(",", ":"))
        f.write("\n")


def save_adapter(peft, name, folder):
    """PEFT's own adapter_config.json and adapter_model.safetensors, without its README."""
    peft.save_pretrained(folder, selected_adapters=[name])
    sub = os.path.join(folder, name)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        os.replace(os.path.join(sub, file), os.path.join(folder, file))
    for d in (sub, folder):
        if os.path.exists(os.path.join(d, "README.md")):
            os.remove(os.path.join(d, "README.md"))
    os.rmdir(sub)
    path = os.path.join(folder, "adapter_config.json")  # PEFT writes the modules in the order of a hash set
    conf = json.load(open(path))
    conf["target_modules"] = sorted(conf["target_modules"])
    with open(path, "w") as f:
        json.dump(conf, f, indent=2, sort_keys=True)
        f.write("\n")


def published_form(path):
    """Rewrites a config.json the way models published before transformers 5 have it."""
    conf = json.load(open(path))
    rope = conf.pop("rope_parameters")
    conf["rope_theta"] = rope.pop("rope_theta")
    conf["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    conf["torch_dtype"] = conf.pop("dtype")
    conf.pop("layer_types", None)
    with open(path, "w") as f:
        json.dump(conf, f, indent=2, sort_keys=True)
        f.write("\n")


def readable(folder):
    """safetensors writes its files for the owner only."""
    for at, _, files in os.walk(folder):
        for f in files:
            os.chmod(os.path.join(at, f), 0o644)


def randomise_adapter(params, seed, b_scale):
    """A as PEFT starts it (uniform within 1/sqrt(in)), B normal: a delta of visible size."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in params.items():
            if ".lora_A." in name:
                p.copy_((torch.rand(p.shape, generator=g) * 2 - 1) / math.sqrt(p.shape[1]))
            else:
                p.copy_(torch.randn(p.shape, generator=g) * b_scale)


def forward(peft, rows, stacks):
    """Log-probs of every position under each stack, all logits of the whole stack, last logits of the base."""
    out = {}
    with torch.no_grad():
        for label, names in stacks.items():
            with models.stack(peft, names):
                full = [losses.logits(peft, r["tokens"]) for r in rows]
                out[f"logprobs.{label}"] = torch.cat([losses.logprobs(peft, r["tokens"]) for r in rows])
            if label == "both":
                out["logits.both"] = torch.cat(full)
                out["lse.both"] = torch.logsumexp(out["logits.both"], dim=-1)
            if label == "base":
                out["last_logits.base"] = torch.stack([x[-1] for x in full])
    return out


def gradients(peft, params, loss_of, data):
    """Loss, dLoss/dlogprob of the response tokens in order, and the gradient of every A and B of the adapter."""
    for p in params.values():
        p.grad = None
    kept = []
    with models.stack(peft, ["frozen", "trainable"], "trainable"):
        loss, parts = loss_of(peft, data, keep=kept)
        for k in kept:
            k.retain_grad()
        loss.backward()
    grads = {n: p.grad.detach().clone() for n, p in params.items()}
    norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads.values()))
    return {"loss": loss.item(), "grad_norm": norm, **parts}, torch.cat([k.grad for k in kept]), grads


def steps(peft, kind, start, batches, loss_of):
    params = models.adapter_params(peft, "trainable")
    with torch.no_grad():
        for n, p in params.items():
            p.copy_(start[n])
    with models.stack(peft, ["frozen", "trainable"], "trainable"):
        shown = losses.train(peft, list(params.values()), batches, loss_of, OPTIONS)
    return shown, {n: p.detach().clone() for n, p in params.items()}


def largest(a, b):
    """Largest absolute difference and largest relative to the greatest value of b."""
    d = max(float((a[n].double() - b[n].double()).abs().max()) for n in b)
    return {"abs": d, "rel_to_max": d / max(float(b[n].abs().max()) for n in b)}


def check_saved(folder, model, tokens):
    """The saved folder, loaded afresh, must give the same bits as the model in memory."""
    again = models.as_trained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval())
    with torch.no_grad():
        if not torch.equal(losses.logits(again, tokens), losses.logits(model, tokens)):
            raise SystemExit(f"{folder}: the saved model differs from the one recorded")


def record(name, model, seed, transformer_dir, train_dir, published):
    """train_dir may be None; published says in which form config.json is left."""
    tdir = os.path.join(transformer_dir, name)
    os.makedirs(tdir, exist_ok=True)
    mdir = os.path.join(tdir, "model")
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(mdir)  # a copy: .to would also round the rotary tables
    if os.path.exists(os.path.join(mdir, "generation_config.json")):
        os.remove(os.path.join(mdir, "generation_config.json"))

    if published:
        published_form(os.path.join(mdir, "config.json"))
    pairs, rows = make_rows(seed, model.config.vocab_size)
    check_saved(mdir, model, rows[2]["tokens"])
    all_rows = [p[k] for p in pairs for k in ("chosen", "rejected")] + rows
    torch.manual_seed(seed)
    peft = models.add_adapters(model, {"frozen": (4, 8), "trainable": (6, 12)})
    frozen, params = models.adapter_params(peft, "frozen"), models.adapter_params(peft, "trainable")
    randomise_adapter(frozen, seed + 1, 0.15)
    randomise_adapter(params, seed + 2, 0.10)
    save_adapter(peft, "frozen", os.path.join(tdir, "frozen"))
    save_adapter(peft, "trainable", os.path.join(tdir, "trainable"))
    trained = {n: p.detach().clone() for n, p in params.items()}
    start = {n: (p if ".lora_A." in n else torch.zeros_like(p)) for n, p in trained.items()}
    pair_batches = [[0, 1], [2, 3], [1, 2], [3, 0], [0, 2]] * 2
    row_batches = [[0, 1], [2, 3], [1, 2], [0, 3], [2, 0]] * 2

    stacks = {"base": [], "frozen": ["frozen"], "both": ["frozen", "trainable"]}
    dpo = lambda m, d, keep=None: losses.dpo_loss(m, d, BETA, NLL, keep)

    def everything():
        out = {"forward": forward(peft, all_rows, stacks)}
        with torch.no_grad(), models.stack(peft, ["frozen"]):
            for p in pairs:
                p["ref_chosen"] = losses.response(peft, p["chosen"]).sum().item()
                p["ref_rejected"] = losses.response(peft, p["rejected"]).sum().item()
        out["dpo"] = gradients(peft, params, dpo, pairs)
        out["sft"] = gradients(peft, params, losses.sft_loss, rows)
        out["dpo_steps"] = steps(peft, "dpo", start, [[pairs[i] for i in b] for b in pair_batches], dpo)
        out["sft_steps"] = steps(peft, "sft", start, [[rows[i] for i in b] for b in row_batches], losses.sft_loss)
        with torch.no_grad():
            for n, p in params.items():
                p.copy_(trained[n])
        return out

    with models.double_precision(peft):
        exact = everything()
    with torch.no_grad():  # back to the exact float32 values that were saved
        for n, p in params.items():
            p.copy_(trained[n])
    got = everything()
    trl = trl_check.dpo(models, peft, pairs, BETA, NLL, model.config.vocab_size)

    save_file({k: v.contiguous() for k, v in got["forward"].items()}, os.path.join(tdir, "forward.safetensors"))
    grads = {}
    for kind in ("dpo", "sft"):
        grads[f"{kind}.dlogprob"] = got[kind][1]
        grads.update({f"{kind}.{n}": g for n, g in got[kind][2].items()})
    save_file({k: v.contiguous() for k, v in grads.items()}, os.path.join(tdir, "grad.safetensors"))

    def error(kind):
        s, e = got[f"{kind}_steps"], exact[f"{kind}_steps"]
        return {"gradient": largest(got[kind][2], exact[kind][2]),
                "loss": abs(got[kind][0]["loss"] - exact[kind][0]["loss"]),
                "step_loss": max(abs(a["loss"] - b["loss"]) for a, b in zip(s[0], e[0])),
                "step_grad_norm_rel": max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in zip(s[0], e[0])),
                "final_weights": largest(s[1], e[1])}

    fwd = {k: float((got["forward"][k].double() - exact["forward"][k].double()).abs().max()) for k in got["forward"]}
    errors = {"forward": fwd, "dpo": error("dpo"), "sft": error("sft")}
    offsets = [0]
    for r in all_rows:
        offsets.append(offsets[-1] + len(r["tokens"]))
    write_json(os.path.join(tdir, "rows.json"), {
        "tokens": [t for r in all_rows for t in r["tokens"]], "offsets": offsets,
        "mask": [t for r in all_rows for t in r["mask"]],
        "pairs": [[2 * i, 2 * i + 1] for i in range(len(pairs))],
        "sft_rows": list(range(2 * len(pairs), len(all_rows))),
        "ref": [[p["ref_chosen"], p["ref_rejected"]] for p in pairs],
        "beta": BETA, "nll_weight": NLL, "dpo": got["dpo"][0], "sft": got["sft"][0],
        "trl": trl, "float32_error": errors})

    readable(tdir)
    if train_dir is None:
        return errors, got, trl
    rdir = os.path.join(train_dir, name)
    os.makedirs(rdir, exist_ok=True)
    for kind in ("dpo", "sft"):
        final = got[f"{kind}_steps"][1]
        save_file({n: t.contiguous() for n, t in final.items()}, os.path.join(rdir, f"{kind}_final.safetensors"))
    with torch.no_grad():
        for n, p in params.items():
            p.copy_(start[n])
    save_adapter(peft, "trainable", os.path.join(rdir, "start"))
    write_json(os.path.join(rdir, "train.json"), {
        "model": name, "frozen": ["frozen"], "options": {**OPTIONS, "beta": BETA, "nll_weight": NLL},
        "pairs": pairs, "rows": rows,
        "dpo": {"batches": pair_batches, "steps": got["dpo_steps"][0], "float32_error": errors["dpo"]},
        "sft": {"batches": row_batches, "steps": got["sft_steps"][0], "float32_error": errors["sft"]}})
    readable(rdir)
    return errors, got, trl
