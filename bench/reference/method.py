#!/usr/bin/env python3
"""The whole method with transformers + TRL, from a constitution alone: the peer of a run of ours.

    go run ./bench/peers/material > material.json
    python method.py --model SmolLM2-135M-Instruct.Q4_1.gguf --material material.json [--counts counts.json] [--dtype bf16]

The material (bench/peers/material) has the preset's spec, prompts, system prompts and held-out answers; every count, length,
rank and rate is read from there. The stages are those of ours: preferences (teacher with the constitution and example
turns, student without), DPO, introspection (reflections; conversations with the roles swapped at every turn), SFT of a new
adapter on top of the frozen one of DPO, and the evaluation of base, DPO and final model on the held-out answers.

Rows are tried until the targets are met, in chunks sized as ours sizes them. --counts (bench/compare_demo.py makes it of a
run of ours) sets the chunks instead, so that both sides try the same rows; where fewer pass here, others fill up. A row
passes when it ended by itself and has a length in the filter's limits. TRL computes the reference in every step, unless
--precompute-reference. `material -set preferences.pairs=8 ...` makes it small, to see that it runs.
"""

import argparse
import json
import math
import tempfile
import time

import torch
import transformers
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

import models
from rows import chunks, each, fill, seen, user
from sampling import prompt_ids, sample, score


class GivenIds(DPOTrainer):
    """The trainer with its tokenisation left out: the rows hold ids already."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


class Stage:
    """Times a stage; tokens are the new ones, or those of the rows trained on."""

    done = {}

    def __init__(self, name):
        self.name, self.tokens = name, 0

    def __enter__(self):
        self.start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error):
        s, c = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
        self.done[self.name] = {"seconds": s, "cpu_seconds": c, "tokens": self.tokens}
        print(f"{self.name}: {s:.1f} s, {self.tokens} tokens", flush=True)


class Method:
    def __init__(self, o, material, counts):
        self.o, self.m, self.spec, self.counts = o, material, material["spec"], counts
        self.tok, self.out = models.tokenizer_from_gguf(o.model), {"training": {}}
        self.base = models.from_gguf(o.model)
        self.base.set_attn_implementation("sdpa")
        if o.dtype == "bf16":
            self.base.to(torch.bfloat16)  # adapters stay fp32, as PEFT makes them

    def target(self, role, n):
        """Rows to train on: the preset's number, or what our run kept of it."""
        return min(n, self.counts.get("kept", {}).get(role, n))

    def answers(self, model, contexts, how, stage):
        made = sample(model, self.tok, contexts, how, self.o.gen_batch)
        stage.tokens += sum(len(ids) for ids, _ in made)
        return made

    def passed(self, ids, ended, low, high):
        text = self.tok.decode(ids).strip()
        return ended and low <= len(text) <= high and "\ufffd" not in text

    def preferences(self, stage):
        p, m, end = self.spec["preferences"], self.m, [self.tok.eos_token_id]
        made, fixed = [], list(self.counts.get("student", []))

        def run(lo, hi):
            asked = m["prompts"][lo:hi]
            chosen = self.answers(self.base, [m["teacher"] + [user(q)] for q in asked], p["teacher"], stage)
            good = [self.passed(*a, m["preference_min_chars"], p["filter"]["max_chars"]) for a in chosen]
            rows = fill([((q, a), ok) for q, a, ok in zip(asked, chosen, good)], fixed.pop(0) if fixed else sum(good))
            rejected = self.answers(self.base, [[user(q)] for q, _ in rows], p["student"], stage)
            for (q, (ids, ended)), (other, stop) in zip(rows, rejected):
                made.append(({"prompt_ids": prompt_ids(self.tok, [user(q)]), "chosen_ids": ids + end,
                              "rejected_ids": other + end * stop}, ended and ids != other and len(other) > 0))
            return sum(ok for _, ok in made[-len(rows):]) if rows else 0

        each(chunks(len(m["prompts"]), p["pairs"], p["chunk"], self.counts.get("teacher")), run)
        self.out["pairs_passed"] = sum(ok for _, ok in made)
        return fill(made, self.target("student", min(p["pairs"], len(made))))

    def options(self, cls, t, folder, **more):
        return cls(output_dir=folder, per_device_train_batch_size=t["batch_size"], learning_rate=t["learning_rate"],
                   lr_scheduler_type=t["schedule"], num_train_epochs=t["epochs"], max_grad_norm=t["clip_norm"], use_cpu=True,
                   bf16=self.o.dtype == "bf16", gradient_checkpointing=False, report_to=[], logging_steps=1,
                   save_strategy="no", max_length=None, disable_tqdm=True, seed=self.spec["seed"], **more)

    def trained(self, trainer, rows, t, stage, tokens):
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        stage.tokens = tokens * t["epochs"]
        steps = math.ceil(len(rows) / t["batch_size"]) * t["epochs"]
        assert trainer.state.global_step == steps, f"{trainer.state.global_step} steps, wanted {steps}"
        self.out["training"][stage.name] = {"rows": len(rows), "steps": steps, "loss": [h["loss"] for h in trainer.state.log_history if "loss" in h]}
        return trainer.model.eval()

    def dpo(self, rows, stage, folder):
        t = self.spec["dpo"]
        args = self.options(DPOConfig, t, folder, beta=t["beta"], loss_type=["sigmoid", "sft"], loss_weights=[1.0, t["nll"]],
                            precompute_ref_log_probs=self.o.precompute_reference)
        trainer = GivenIds(model=self.base, args=args, processing_class=self.tok, peft_config=models.lora(t["rank"], t["alpha"]),
                           train_dataset=Dataset.from_list(rows))
        tokens = sum(2 * len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows)
        return self.trained(trainer, rows, t, stage, tokens)

    def introspection(self, model, stage):
        p, m = self.spec["introspection"], self.m
        low, high = p["filter"]["min_chars"], p["filter"]["max_chars"]
        reflections, talks = [], []

        def reflect(lo, hi):
            asked = m["reflections"][lo:hi]
            made = self.answers(model, [[{"role": "system", "content": m["reflection"]}, user(q)] for q in asked], p["reflection"], stage)
            for q, (ids, ended) in zip(asked, made):
                answer = {"role": "assistant", "content": self.tok.decode(ids)}
                reflections.append(([user(q), answer], self.passed(ids, ended, low, high)))
            return sum(ok for _, ok in reflections[lo:])

        def converse(lo, hi):
            talks.extend([[x, [], True] for x in m["talks"][lo:hi]])  # start, what was said, still good
            for turn in range(p["turns"] | 1):
                on = [t for t in talks[lo:] if t[2]]
                made = self.answers(model, [seen(m["interaction"], *t[:2], turn % 2 == 0) for t in on], p["interaction"], stage)
                for t, (ids, ended) in zip(on, made):
                    t[1].append(self.tok.decode(ids).strip())
                    t[2] = self.passed(ids, ended, m["preference_min_chars"], high)
            return sum(t[2] for t in talks[lo:])

        each(chunks(len(m["reflections"]), p["reflections"], p["chunk"], self.counts.get("reflection")), reflect)
        each(chunks(len(m["talks"]), p["interactions"], p["chunk"], self.counts.get("interaction")), converse)
        self.out["reflections_passed"], self.out["talks_passed"] = sum(ok for _, ok in reflections), sum(t[2] for t in talks)
        talks = [(seen(m["training"], start, said[:len(said) - 1 + len(said) % 2], True), ok) for start, said, ok in talks if said]
        return fill(reflections, self.target("reflection", p["reflections"])) + fill(talks, self.target("interaction", p["interactions"]))

    def sft(self, model, conversations, stage, folder):
        t, rows = self.spec["sft"], []
        for c in conversations:
            ids, mask = models.encode_chat(self.tok, c)
            rows.append({"input_ids": ids, "completion_mask": mask})
        model.add_adapter("sft", models.lora(t["rank"], t["alpha"]))
        model.base_model.set_adapter(["default", "sft"])
        for name, p in model.named_parameters():
            p.requires_grad_(".sft." in name)
        trainer = SFTTrainer(model=model, args=self.options(SFTConfig, t, folder, completion_only_loss=True),
                             processing_class=self.tok, train_dataset=Dataset.from_list(rows))
        frozen = {name: p.detach().clone() for name, p in model.named_parameters() if ".default." in name}
        model = self.trained(trainer, rows, t, stage, sum(len(r["input_ids"]) for r in rows))
        for name, p in model.named_parameters():
            assert name not in frozen or torch.equal(p, frozen[name]), f"SFT changed {name} of the frozen adapter"
        return model

    def evaluate(self, model, stage):
        e, tok, m = self.spec["evaluation"], self.tok, self.m
        held, plain = [(h["prompt"], h["response"]) for h in m["held_out"]], []
        for which, names in (("base", []), ("dpo", ["default"]), ("character", ["default", "sft"])):
            with models.stack(model, names):
                made = self.answers(model, [[user(q)] for q in e["prompts"]], e["sampling"], stage)
                r = {"answers": [tok.decode(ids) for ids, _ in made], "held_out": score(model, tok, held)}
                if which == "base":
                    r["with_constitution"] = score(model, tok, held, [{"role": "system", "content": m["full"]}])
                    r["with_teacher_prompt"] = score(model, tok, held, m["teacher"])
                    said = self.answers(model, [[user(q)] for q, _ in held], e["sampling"], stage)
                    plain = [(q, tok.decode(ids)) for (q, _), (ids, ended) in zip(held, said) if ended]
                r["plain"] = score(model, tok, plain)
            self.out[which] = r


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--model", required=True)
    a.add_argument("--material", required=True, help="what bench/peers/material printed")
    a.add_argument("--counts", help='JSON {"teacher": [rows of each chunk], "student": [...], "reflection": [...], "interaction": [...], "kept": {role: rows}}')
    a.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32", help="bf16: weights and autocast")
    a.add_argument("--gen-batch", type=int, default=64, help="rows generated at once")
    a.add_argument("--precompute-reference", action="store_true", help="score the reference once, before DPO")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--json")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    transformers.utils.logging.set_verbosity_error()
    material = json.load(open(o.material, encoding="utf-8"))
    counts = json.load(open(o.counts, encoding="utf-8")) if o.counts else {}
    torch.manual_seed(material["spec"]["seed"])
    with Stage("load"):
        x = Method(o, material, counts)
    with tempfile.TemporaryDirectory() as folder:
        with Stage("preferences") as s:
            pairs = x.preferences(s)
        with Stage("dpo") as s:
            model = x.dpo(pairs, s, folder)
        with Stage("introspection") as s:
            rows = x.introspection(model, s)
        with Stage("sft") as s:
            model = x.sft(model, rows, s, folder)
    with Stage("evaluation") as s:
        x.evaluate(model, s)
    b, out = x.out["base"], x.out
    out["gain_dpo"], out["gain_character"] = out["dpo"]["held_out"] - b["held_out"], out["character"]["held_out"] - b["held_out"]
    print(f"held-out log-prob a token: base {b['held_out']:.3f}, gain after DPO {out['gain_dpo']:+.3f}, final {out['gain_character']:+.3f}; "
          f"{sum(s['seconds'] for s in Stage.done.values()):.0f} s")
    line = json.dumps({"stages": Stage.done, "dtype": o.dtype, **out}, ensure_ascii=False)
    print(line)
    if o.json:
        with open(o.json, "w", encoding="utf-8") as f:
            f.write(line + "\n")


if __name__ == "__main__":
    main()
