"""Rows, log-probs, losses and optimiser steps, written out plainly.

A row is {"tokens": [...], "mask": [...]}: mask[i] = 1 for every response token.
The log-prob of token i stands at position p = i-1. Rows are run one at a time,
so nothing can leak between them and no padding is involved.
"""

import torch
import torch.nn.functional as F


def logits(model, tokens):
    """[n, vocabulary] of one row."""
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def logprobs(model, tokens):
    """[n-1]: log P(tokens[p+1] | tokens[:p+1])."""
    lp = torch.log_softmax(logits(model, tokens)[:-1], dim=-1)
    return lp.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


def response(model, row):
    """Log-probs of the row's response tokens; the head runs at their positions only."""
    at = torch.tensor([i - 1 for i, m in enumerate(row["mask"]) if m])
    ids = torch.tensor([row["tokens"]])
    x = model(input_ids=ids, use_cache=False, logits_to_keep=at).logits[0]
    return torch.log_softmax(x, dim=-1).gather(1, ids[0, at + 1][:, None])[:, 0]


def dpo_loss(model, pairs, beta, nll, keep=None):
    """-log sigmoid(beta((pc-pr)-(rc-rr))), mean over pairs, + nll * mean over pairs of the chosen's mean token NLL.

    p* are sums over response tokens under the model, r* the stored reference sums.
    keep, if given, collects the log-prob tensors (chosen, rejected of each pair).
    """
    pref, aux, stats = [], [], []
    for p in pairs:
        c, r = response(model, p["chosen"]), response(model, p["rejected"])
        if keep is not None:
            keep += [c, r]
        dc, dr = c.sum() - p["ref_chosen"], r.sum() - p["ref_rejected"]
        pref.append(-F.logsigmoid(beta * (dc - dr)))
        aux.append(-c.mean())
        stats.append((beta * dc.item(), beta * dr.item()))
    preference, auxiliary = torch.stack(pref).mean(), torch.stack(aux).mean()
    parts = {"preference": preference.item(), "nll": auxiliary.item(),
             "chosen_reward": sum(a for a, _ in stats) / len(stats),
             "rejected_reward": sum(b for _, b in stats) / len(stats)}
    return preference + nll * auxiliary, parts


def sft_loss(model, rows, keep=None):
    """Mean over rows of the row's mean response-token NLL."""
    out = []
    for r in rows:
        c = response(model, r)
        if keep is not None:
            keep.append(c)
        out.append(-c.mean())
    return torch.stack(out).mean(), {}


def train(model, params, batches, loss_of, options):
    """Runs torch.optim.AdamW over batches; returns what each step showed (grad_norm is before clipping)."""
    opt = torch.optim.AdamW(params, lr=options["lr"], betas=(options["beta1"], options["beta2"]), eps=options["eps"],
                            weight_decay=options["weight_decay"], foreach=False, fused=False)
    steps = []
    for b in batches:
        opt.zero_grad()
        loss, parts = loss_of(model, b)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, options["clip_norm"], foreach=False)
        opt.step()
        steps.append({"loss": loss.item(), "grad_norm": norm.item(), **parts})
    return steps
