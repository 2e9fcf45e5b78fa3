"""Records SmolLM2-135M-Instruct, read from its GGUF file."""

import math
import os

import torch
from safetensors.torch import save_file

import losses
import models
import tiny

RANK, ALPHA, SEED = 4, 8, 7
B_SCALE = 0.01
TOP, SAMPLES = 8, 8
OPTIONS = {**tiny.OPTIONS, "lr": 2e-4}

PAIRS = [
    ("What is the capital of France?",
     "Arr, that be Paris, matey, a fine port for an old sea dog.",
     "The capital of France is Paris."),
    ("How do I boil an egg?",
     "Set yer pot to a rollin' boil, drop the egg overboard and count ten minutes by the glass!",
     "Put the egg in boiling water for ten minutes, then cool it under cold water."),
    ("I had a bad day.",
     "Aye, even the worst storm blows itself out, me hearty. Tell yer captain all.",
     "I'm sorry to hear that. Would you like to talk about what happened?"),
]
CHAT = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "Captain Grimjack, terror o' 7 seas."},
    {"role": "user", "content": "Say that again, naïve reader here: 你好!"},
    {"role": "assistant", "content": "Ahoy, and welcome aboard."},
]


def make_rows(tok):
    def row(messages):
        ids, mask = models.encode_chat(tok, messages)
        return {"messages": messages, "tokens": ids, "mask": mask}

    one = lambda q, a: [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    rows = []
    for q, c, r in PAIRS:
        rows += [row(one(q, c)), row(one(q, r))]
    return rows + [row(CHAT)]


def samples(t):
    """SAMPLES entries of a matrix: flat index floor(size*(2k+1)/(2*SAMPLES))."""
    flat = t.reshape(-1)
    return torch.stack([flat[flat.numel() * (2 * k + 1) // (2 * SAMPLES)] for k in range(SAMPLES)])


def pass_over(model, rows, top=False):
    """Log-probs of all positions, summed response log-probs, and with top the log-sum-exp and greatest logits."""
    lps, sums, lse, best = [], [], [], []
    with torch.no_grad():
        for r in rows:
            x = losses.logits(model, r["tokens"])
            ids = torch.tensor(r["tokens"][1:])
            lp = torch.log_softmax(x[:-1], dim=-1).gather(1, ids[:, None])[:, 0]
            lps.append(lp)
            sums.append(lp[torch.tensor(r["mask"][1:], dtype=torch.bool)].sum().item())
            if top:
                lse.append(torch.logsumexp(x, dim=-1))
                best.append(x.topk(TOP, dim=-1))
    if not top:
        return torch.cat(lps), sums
    return (torch.cat(lps), sums, torch.cat(lse), torch.cat([b.values for b in best]),
            torch.cat([b.indices for b in best]).to(torch.int32))


def everything(peft, params, rows, pairs, sft_rows, batches):
    """All recorded numbers in the model's present precision."""
    dpo = lambda m, d, keep=None: losses.dpo_loss(m, d, tiny.BETA, tiny.NLL, keep)
    out = {}
    with models.stack(peft, []):
        (out["logprobs.base"], out["sums.base"], out["lse.base"], out["top.logits"],
         out["top.ids"]) = pass_over(peft, rows, top=True)
    models.fill_from_generator(params, SEED, B_SCALE)
    with models.stack(peft, ["trainable"]):
        out["logprobs.adapter"], out["sums.adapter"] = pass_over(peft, rows)
    for i, p in enumerate(pairs):
        p["ref_chosen"], p["ref_rejected"] = out["sums.base"][2 * i], out["sums.base"][2 * i + 1]

    for kind, loss_of, data in (("dpo", dpo, pairs), ("sft", losses.sft_loss, sft_rows)):
        models.fill_from_generator(params, SEED, B_SCALE)
        for p in params.values():
            p.grad = None
        with models.stack(peft, ["trainable"], "trainable"):
            loss, parts = loss_of(peft, data)
            loss.backward()
            grads = [p.grad.double() for p in params.values()]
            norms = torch.stack([g.norm() for g in grads])
            out[f"{kind}.norms"], out[f"{kind}.samples"] = norms, torch.stack([samples(g) for g in grads])
            out[kind] = {"loss": loss.item(), "grad_norm": norms.norm().item(), **parts}
            print(kind, out[kind], flush=True)
            models.fill_from_generator(params, SEED, 0.0)
            steps = [[data[i] for i in b] for b in batches[kind]]
            out[f"{kind}.steps"] = losses.train(peft, list(params.values()), steps, loss_of, OPTIONS)
            out[f"{kind}.final_norms"] = torch.stack([p.detach().double().norm() for p in params.values()])
            out[f"{kind}.final_samples"] = torch.stack([samples(p.detach()).double() for p in params.values()])
            print(kind, [(round(s["loss"], 4), round(s["grad_norm"], 3)) for s in out[f"{kind}.steps"]], flush=True)
    return out


def errors(got, exact):
    """How far the float32 recordings are from float64."""
    far = lambda k: float((got[k].double() - exact[k].double()).abs().max())
    rel = lambda k: float(((got[k].double() - exact[k].double()) / exact[k].double()).abs().max())
    e = {k: far(k) for k in ("logprobs.base", "lse.base", "top.logits", "logprobs.adapter")}
    for kind in ("dpo", "sft"):
        e[kind] = {"gradient_norm_rel": rel(f"{kind}.norms"), "gradient_samples": far(f"{kind}.samples"),
                   "loss": abs(got[kind]["loss"] - exact[kind]["loss"])}
    return e


def step_errors(got, exact, kind):
    """The same for the optimiser steps. Adam turns a gradient near zero into a step of either sign: see the maximum."""
    both = list(zip(got[f"{kind}.steps"], exact[f"{kind}.steps"]))
    norms = got[f"{kind}.final_norms"] / exact[f"{kind}.final_norms"] - 1
    samples = got[f"{kind}.final_samples"] - exact[f"{kind}.final_samples"]
    return {"step_loss": max(abs(a["loss"] - b["loss"]) for a, b in both),
            "step_grad_norm_rel": max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in both),
            "final_norms_rel": float(norms.abs().max()), "final_samples": float(samples.abs().max()),
            "final_samples_rms": float((samples ** 2).mean().sqrt())}


def record(gguf, transformer_dir, train_dir):
    tdir, rdir = os.path.join(transformer_dir, "smollm2"), os.path.join(train_dir, "smollm2")
    os.makedirs(tdir, exist_ok=True)
    os.makedirs(rdir, exist_ok=True)
    rows = make_rows(models.tokenizer_from_gguf(gguf))
    model = models.from_gguf(gguf, bf16=False)
    unrounded, unrounded_sums = pass_over(model, rows)
    models.round_bf16_but_norms(model)

    peft = models.add_adapters(model, {"trainable": (RANK, ALPHA)})
    params = models.adapter_params(peft, "trainable")
    pairs = [{"id": f"pair-{i}", "chosen": rows[2 * i], "rejected": rows[2 * i + 1]} for i in range(len(PAIRS))]
    sft = [0, 2, 4, 6]
    sft_rows = [rows[i] for i in sft]
    batches = {"dpo": [[0, 1], [2], [1, 2], [0], [2, 0], [1], [0, 1], [2], [1, 2], [0]],
               "sft": [[0, 1], [2, 3]] * 5}
    got = everything(peft, params, rows, pairs, sft_rows, batches)

    keep = {k: v for k, v in got.items() if isinstance(v, torch.Tensor) and ".final" not in k}
    keep["logprobs.unrounded"] = unrounded
    save_file({k: (v if v.dtype == torch.int32 else v.float()).contiguous() for k, v in keep.items()},
              os.path.join(tdir, "tensors.safetensors"))
    save_file({k: got[k].float().contiguous() for k in
               ("dpo.final_norms", "dpo.final_samples", "sft.final_norms", "sft.final_samples")},
              os.path.join(rdir, "final.safetensors"))
    offsets = [0]
    for r in rows:
        offsets.append(offsets[-1] + len(r["tokens"]))
    bf16 = (got["logprobs.base"] - unrounded).double()
    per_token = [abs(a - b) / sum(r["mask"]) for a, b, r in zip(got["sums.base"], unrounded_sums, rows)]
    scalars = {
        "messages": [r["messages"] for r in rows],
        "tokens": [t for r in rows for t in r["tokens"]], "offsets": offsets,
        "mask": [t for r in rows for t in r["mask"]],
        "pairs": [[2 * i, 2 * i + 1] for i in range(len(pairs))], "sft_rows": sft,
        "sums_base": got["sums.base"], "sums_adapter": got["sums.adapter"], "sums_unrounded": unrounded_sums,
        "adapter": {"rank": RANK, "alpha": ALPHA, "seed": SEED, "b_scale": B_SCALE, "matrices": list(params)},
        "beta": tiny.BETA, "nll_weight": tiny.NLL, "dpo": got["dpo"], "sft": got["sft"],
        "bf16_error": {"logprob_max": float(bf16.abs().max()), "logprob_rms": math.sqrt(float((bf16 ** 2).mean())),
                       "sum_per_response_token_max": max(per_token)}}
    tiny.write_json(os.path.join(tdir, "rows.json"), scalars)
    steps = {
        "rows_of": "lm/transformer/testdata/ref/smollm2/rows.json",
        "options": {**OPTIONS, "beta": tiny.BETA, "nll_weight": tiny.NLL},
        "adapter": {"rank": RANK, "alpha": ALPHA, "seed": SEED, "b_scale": 0, "matrices": list(params)},
        **{k: {"batches": batches[k], "steps": got[f"{k}.steps"]} for k in ("dpo", "sft")}}
    tiny.write_json(os.path.join(rdir, "train.json"), steps)
    tiny.readable(tdir)
    tiny.readable(rdir)
    print("smollm2 recorded; now the same in float64", scalars["bf16_error"], flush=True)

    with models.double_precision(peft):
        exact = everything(peft, params, rows, pairs, sft_rows, batches)
    scalars["float32_error"] = errors(got, exact)
    for kind in ("dpo", "sft"):
        steps[kind]["float32_error"] = step_errors(got, exact, kind)
    tiny.write_json(os.path.join(tdir, "rows.json"), scalars)
    tiny.write_json(os.path.join(rdir, "train.json"), steps)
    print("smollm2 float32 error", scalars["float32_error"], flush=True)
