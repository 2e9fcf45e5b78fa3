"""Records tiny.safetensors with the reference implementation, to test the reader and the writer against.

    python3 -m venv VENV && VENV/bin/pip install safetensors==0.8.0 torch==2.15.0 numpy==2.4.6
    VENV/bin/python record.py           # writes tiny.safetensors and tiny.json beside itself
    VENV/bin/python record.py FILE      # reads a file of ours with the reference, prints what it holds as JSON

tiny.json holds the same tensors as the bits of float32 numbers (or, for other types, as raw bytes).
"""

import json
import os
import sys
from importlib.metadata import version

import torch
from safetensors import safe_open
from safetensors.torch import save_file

assert version("safetensors") == "0.8.0", version("safetensors")
here = os.path.dirname(os.path.abspath(__file__))


def describe(path):
    out = {"metadata": None, "tensors": {}}
    with safe_open(path, "pt") as f:
        out["metadata"] = f.metadata()
        for name in sorted(f.keys()):
            t = f.get_tensor(name)
            e = {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape)}
            if t.dtype in (torch.float32, torch.float16, torch.bfloat16):
                e["bits"] = [v & 0xFFFFFFFF for v in t.to(torch.float32).contiguous().view(torch.int32).flatten().tolist()]
            else:
                e["raw"] = t.contiguous().flatten().view(torch.uint8).tolist()
            out["tensors"][name] = e
    return out


if len(sys.argv) > 1:
    json.dump(describe(sys.argv[1]), sys.stdout, sort_keys=True)
    sys.exit()

g = torch.Generator().manual_seed(7)
half = torch.tensor([0x0000, -0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, -0x4001, 0x7BFF, 0x7C00, -0x0400], dtype=torch.int16)
path = os.path.join(here, "tiny.safetensors")
save_file(
    {
        "layer.f32": torch.randn(3, 4, generator=g),
        "layer.bf16": torch.randn(2, 3, 4, generator=g).to(torch.bfloat16),
        "layer.f16": half.view(torch.float16).reshape(2, 5),
        "ids": torch.tensor([[1, -2], [3, 1 << 40]], dtype=torch.int64),
        "mask": torch.tensor([True, False, True]),
        "scale": torch.tensor(0.5),
        "empty": torch.zeros(0, 4),
        "naïve ⚓ \"quoted\" <&>": torch.ones(2),
    },
    path,
    metadata={"format": "pt", "note": "ahoy, naïve ⚓"},
)
with open(os.path.join(here, "tiny.json"), "w") as f:
    json.dump(describe(path), f, sort_keys=True, indent=1)
    f.write("\n")
