"""Feeds the recorded token ids to TRL's own DPOTrainer and compares its loss with ours.

TRL's "sft" loss is the mean over all chosen tokens of the batch; ours is the
mean over pairs of each chosen answer's mean. They agree for one pair, or when
all chosen answers are equally long. Both forms are recorded.
"""

import copy
import tempfile

import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer, models as tkm
from trl import DPOConfig, DPOTrainer

import losses


class _GivenIds(DPOTrainer):
    """The trainer with its tokenisation left out: the rows hold ids already."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


def _tokenizer(vocab):
    words = {f"<{i}>": i for i in range(vocab)}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(tkm.WordLevel(words, unk_token="<0>")),
                                                pad_token="<0>", eos_token="<2>")


def dpo(models, peft, pairs, beta, nll, vocab):
    """Loss of DPOTrainer for all pairs in one batch, and for each pair alone; ours beside it.

    The frozen adapter is merged into a copy's weights, so that TRL's reference
    (adapters off) is the frozen stack.
    """
    trainable = {n: p.detach().clone() for n, p in models.adapter_params(peft, "trainable").items()}
    work = copy.deepcopy(peft)
    work.delete_adapter("trainable")
    base = work.merge_and_unload(adapter_names=["frozen"]) if "frozen" in work.peft_config else work.unload()
    rank, alpha = peft.peft_config["trainable"].r, peft.peft_config["trainable"].lora_alpha

    def row(p):
        n = p["chosen"]["mask"].index(1)
        return {"prompt_ids": p["chosen"]["tokens"][:n], "chosen_ids": p["chosen"]["tokens"][n:],
                "rejected_ids": p["rejected"]["tokens"][n:]}

    data = [row(p) for p in pairs]
    with tempfile.TemporaryDirectory() as tmp:
        args = DPOConfig(output_dir=tmp, loss_type=["sigmoid", "sft"], loss_weights=[1.0, nll], beta=beta,
                         use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], max_length=None,
                         per_device_train_batch_size=len(pairs), disable_dropout=True)
        t = _GivenIds(model=base, args=args, train_dataset=Dataset.from_list(data),
                      processing_class=_tokenizer(vocab), peft_config=models.lora(rank, alpha))
        with torch.no_grad():
            for n, p in models.adapter_params(t.model, "default").items():
                p.copy_(trainable[n])
            batch = float(t.compute_loss(t.model, t.data_collator(data)))
            single = [float(t.compute_loss(t.model, t.data_collator([d]))) for d in data]
        gone = float(t._metrics["train"]["rewards/margins"][0])
    with torch.no_grad(), models.stack(peft, ["frozen", "trainable"]):
        _, parts = losses.dpo_loss(peft, pairs, beta, nll)
        tokens = torch.cat([losses.response(peft, p["chosen"]) for p in pairs])
        ours_single = [float(losses.dpo_loss(peft, [p], beta, nll)[0]) for p in pairs]
    return {
        "batch_loss": batch, "our_batch_loss": parts["preference"] + nll * parts["nll"],
        "our_batch_loss_with_trl_token_mean": parts["preference"] + nll * float(-tokens.mean()),
        "single_pair_losses": single, "our_single_pair_losses": ours_single,
        "batch_margin": gone, "our_batch_margin": parts["chosen_reward"] - parts["rejected_reward"],
    }
