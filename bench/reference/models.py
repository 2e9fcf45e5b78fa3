"""Models and adapters of the reference recordings.

Every weight is rounded to bfloat16 and then held in float32: that is what the
Go engine computes with, so a recording differs from it by float32 summation
order only.
"""

import contextlib
import math
import types

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import pre_tokenizers
from transformers import (AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig,
                          LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM)

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def round_bf16(model):
    """Rounds all weights to bfloat16 (nearest even), norms too; dtype stays float32."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(torch.bfloat16).to(torch.float32))
    return model.eval()


def _randomise(model, seed, norm=1, embed=0.3):
    """Fills a tiny model with weights large enough to make attention and logits far from uniform."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            r = torch.randn(p.shape, generator=g)
            if "norm" in name:
                p.copy_(norm + 0.3 * r)
            elif "embed_tokens" in name:
                p.copy_(embed * r)
            else:
                p.copy_(1.3 * r / math.sqrt(p.shape[1]))
    return round_bf16(model)


def tiny_llama():
    """Llama: tied head, head_dim 12 = width/heads, two query heads a KV head."""
    c = LlamaConfig(
        vocab_size=160, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, max_position_embeddings=128, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=True,
        attention_bias=False, mlp_bias=False, bos_token_id=1, eos_token_id=2, attn_implementation="eager",
    )
    return _randomise(LlamaForCausalLM(c), 11)


def tiny_qwen3():
    """Qwen3: untied head, head_dim 16 != width/heads, query and key norms that are not one."""
    c = Qwen3Config(
        vocab_size=160, hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}, tie_word_embeddings=False,
        attention_bias=False, bos_token_id=1, eos_token_id=2, attn_implementation="eager",
    )
    return _randomise(Qwen3ForCausalLM(c), 12)


def tiny_llama3():
    """Llama with llama3 rope scaling: of the frequencies one is left alone, two are in the smooth part, five are divided."""
    c = LlamaConfig(
        vocab_size=96, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=256, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        tie_word_embeddings=False, attention_bias=False, mlp_bias=False, bos_token_id=1, eos_token_id=2,
        attn_implementation="eager",
    )
    return _randomise(LlamaForCausalLM(c), 13)


def tiny_gemma3():
    """Gemma 3: windows shorter than the rows in three layers of four, linear rope scaling in the fourth."""
    c = Gemma3TextConfig(
        vocab_size=96, hidden_size=44, intermediate_size=72, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, rms_norm_eps=1e-6, query_pre_attn_scalar=24,
        sliding_window=10, layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}},
        tie_word_embeddings=True, attention_bias=False, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        attn_implementation="eager",
    )
    return as_trained(_randomise(Gemma3ForCausalLM(c), 14, norm=0, embed=0.2))


def as_trained(model):
    """Rounds Gemma's factor of the embedding to bfloat16.

    transformers rounds it to the type of the weights, which is bfloat16 in the
    models as they were trained and published; here the weights are float32.
    """
    table = model.get_input_embeddings()
    if hasattr(table, "embed_scale"):
        table.embed_scale = table.embed_scale.to(torch.bfloat16).to(torch.float32)
    return model


def from_gguf(path, bf16=True):
    """Reads a Llama-family GGUF through transformers into a fresh float32 model."""
    folder, _, file = path.rpartition("/")
    src = AutoModelForCausalLM.from_pretrained(folder or ".", gguf_file=file, dtype=torch.float32)
    conf = src.config
    conf._attn_implementation = "eager"
    conf._name_or_path = ""
    model = AutoModelForCausalLM.from_config(conf, dtype=torch.float32)
    model.load_state_dict(src.state_dict())
    model.eval()
    return round_bf16_but_norms(model) if bf16 else model


def tokenizer_from_gguf(path):
    """The GGUF's tokenizer. transformers ignores the key tokenizer.ggml.pre, so digits are split here (pre = smollm)."""
    folder, _, file = path.rpartition("/")
    tok = AutoTokenizer.from_pretrained(folder or ".", gguf_file=file)
    tok.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tok


def encode_chat(tok, messages):
    """Token ids and response mask. Each answer is tokenised apart from what stands before it, as sampling sees it.

    The mask covers every answer and its end-of-turn token; the row ends there.
    """
    render = lambda m, g: tok.apply_chat_template(m, tokenize=False, add_generation_prompt=g)
    ids, mask, done = [], [], ""
    for k, m in enumerate(messages):
        if m["role"] != "assistant":
            continue
        before = render(messages[:k], True)
        assert before.startswith(done)
        context = tok(before[len(done):], add_special_tokens=False)["input_ids"]
        tok.backend_tokenizer.encode_special_tokens = True  # the text of an answer cannot hold control tokens
        answer = tok.backend_tokenizer.encode(m["content"], add_special_tokens=False).ids + [tok.eos_token_id]
        tok.backend_tokenizer.encode_special_tokens = False
        ids += context + answer
        mask += [0] * len(context) + [1] * len(answer)
        done = before + m["content"] + tok.eos_token
    return ids, mask


def round_bf16_but_norms(model):
    """Rounds the matrices to bfloat16; norm weights stay float32, as in the Go engine."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" not in name:
                p.copy_(p.to(torch.bfloat16).to(torch.float32))
    return model.eval()


def lora(rank, alpha):
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=PROJECTIONS, lora_dropout=0.0, bias="none",
                      task_type="CAUSAL_LM")


def add_adapters(model, adapters):
    """adapters: {name: (rank, alpha)}. Returns the PeftModel with all of them, none active yet."""
    peft = None
    for name, (rank, alpha) in adapters.items():
        if peft is None:
            peft = get_peft_model(model, lora(rank, alpha), adapter_name=name)
        else:
            peft.add_adapter(name, lora(rank, alpha))
    return peft.eval()


def adapter_params(peft, name):
    """The adapter's parameters keyed by the names of PEFT's own file, in model order."""
    mark = f".{name}.weight"
    return {n.replace(mark, ".weight"): p for n, p in peft.named_parameters() if mark in n}


@contextlib.contextmanager
def stack(peft, names, trainable=None):
    """Makes the adapters in names active (their deltas add up); only `trainable` gets gradients."""
    if not names:
        with peft.disable_adapter():
            yield
        return
    peft.base_model.set_adapter(list(names))
    for n, p in peft.named_parameters():
        p.requires_grad_(trainable is not None and f".{trainable}." in n)
    yield


# --- numbers that need no file -------------------------------------------------

_GOLDEN, _M1, _M2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def splitmix_uniform(seed, matrix, count):
    """count float32 numbers in [-1, 1): element i is splitmix64(seed<<48 | matrix<<32 | i).

    The top 24 bits u give 2*u/2^24 - 1, exact in float32.
    """
    m = (1 << 64) - 1
    z = np.arange(count, dtype=np.uint64) + np.uint64(((seed << 48) | (matrix << 32)) & m)
    with np.errstate(over="ignore"):
        z = z + np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_M1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_M2)
        z = z ^ (z >> np.uint64(31))
    u = (z >> np.uint64(40)).astype(np.float64)
    return torch.from_numpy((u * 2.0 ** -23 - 1.0).astype(np.float32))


def fill_from_generator(params, seed, b_scale):
    """A = U * float32(1/sqrt(in)), B = U * float32(b_scale) (0 leaves B zero); matrix number = position in params."""
    with torch.no_grad():
        for j, (name, p) in enumerate(params.items()):
            scale = 1.0 / math.sqrt(p.shape[1]) if ".lora_A." in name else b_scale
            p.copy_((splitmix_uniform(seed, j, p.numel()) * np.float32(scale)).reshape(p.shape))


@contextlib.contextmanager
def double_precision(model):
    """Runs the model in float64, so that a recording can state its own float32 error.

    transformers forces float32 inside norms and softmax by naming torch.float32
    in the modelling file; that name is redirected for the time being. Gemma's
    norm forces it by a call, and is replaced. The rotary tables stay float32, as
    they are part of what is compared.
    """
    gemma = transformers.models.gemma3.modeling_gemma3
    mods = [transformers.models.llama.modeling_llama, transformers.models.qwen3.modeling_qwen3, gemma]

    class Torch(types.ModuleType):
        float32 = torch.float64

        def __getattr__(self, name):
            return getattr(torch, name)

    saved = [m.torch for m in mods]
    norm = gemma.Gemma3RMSNorm.forward
    inv = model.get_submodule("base_model.model.model.rotary_emb") if hasattr(model, "peft_config") else model.model.rotary_emb
    freqs = {n: b.clone() for n, b in inv.named_buffers()}

    def keep():
        for n, b in freqs.items():
            setattr(inv, n, b)

    try:
        for m in mods:
            m.torch = Torch("torch")
        gemma.Gemma3RMSNorm.forward = lambda self, x: self._norm(x) * (1.0 + self.weight)
        model.double()
        keep()
        yield
    finally:
        for m, t in zip(mods, saved):
            m.torch = t
        gemma.Gemma3RMSNorm.forward = norm
        model.float()
        keep()
