"""Answers and scores with transformers, for method.py: batches padded on the left, as its users do it."""

import torch


def prompt_ids(tok, messages):
    text = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tok(text, add_special_tokens=False)["input_ids"]


def pad_left(rows, pad):
    """(ids, mask, positions), each [rows, longest]."""
    width = max(map(len, rows))
    x = torch.tensor([[pad] * (width - len(r)) + list(r) for r in rows])
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
    return x, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def sample(model, tok, contexts, s, batch):
    """One answer a context: [(ids without the end token, ended by itself)]. s: a spec's sampling.

    transformers applies the repetition penalty to the tokens of the prompt as well; so does ours.
    """
    end, out = tok.eos_token_id, []
    how = dict(do_sample=True, temperature=s["temperature"], top_p=s["top_p"], top_k=s["top_k"]) if s["temperature"] else dict(do_sample=False)
    with torch.inference_mode():
        ids = [prompt_ids(tok, c) for c in contexts]
        for at in range(0, len(ids), batch):
            x, mask, _ = pad_left(ids[at:at + batch], end)
            y = model.generate(input_ids=x, attention_mask=mask, repetition_penalty=s["repetition_penalty"], max_new_tokens=s["max_tokens"],
                               eos_token_id=end, pad_token_id=end, **how)[:, x.shape[1]:].tolist()
            out += [(row[:row.index(end)] if end in row else row, end in row) for row in y]
    return out


def score(model, tok, rows, before=(), batch=8):
    """Mean log-prob a token over all answers and their end tokens. rows: [(prompt, answer text)]; before: messages."""
    total, count = 0.0, 0
    with torch.inference_mode():
        for at in range(0, len(rows), batch):
            tails = [tok(a, add_special_tokens=False)["input_ids"] + [tok.eos_token_id] for _, a in rows[at:at + batch]]
            heads = [prompt_ids(tok, [*before, {"role": "user", "content": q}]) for q, _ in rows[at:at + batch]]
            x, mask, positions = pad_left([h + t for h, t in zip(heads, tails)], tok.eos_token_id)
            keep = max(map(len, tails))  # only these positions go through the vocabulary
            logits = model(input_ids=x, attention_mask=mask, position_ids=positions, logits_to_keep=keep + 1).logits[:, :-1].float()
            lp = torch.log_softmax(logits, -1).gather(-1, x[:, -keep:, None])[..., 0]
            total += sum(r[-len(t):].sum().item() for r, t in zip(lp, tails))
            count += sum(map(len, tails))
    return total / count if count else 0.0
