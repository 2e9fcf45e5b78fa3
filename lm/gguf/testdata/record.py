"""Records reference weights for the dequantisers: writes blocks.gguf and blocks.f32 beside itself.

blocks.gguf is written by the Python package gguf: one tensor of random blocks for every type, and one
metadata key of every kind. blocks.f32 holds the weights of all tensors in file order as gguf.quants
widens them (its own tests compare it bit by bit with ggml's C code).

    python3 -m venv VENV && VENV/bin/pip install gguf==0.19.0 numpy==2.4.6
    VENV/bin/python record.py
"""

import os
from importlib.metadata import version

import numpy as np
from gguf import GGMLQuantizationType as T, GGUFValueType as V, GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES

assert version("gguf") == "0.19.0", version("gguf")
ROWS, COLS = 3, 512
# Byte offsets of the fp16 fields in a block; their bits are drawn among the finite numbers.
HALVES = {
    T.F16: [0], T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}
TYPES = [T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q4_K, T.Q5_K, T.Q6_K]

here = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(20260101)
w = GGUFWriter(os.path.join(here, "blocks.gguf"), "test")
for kind, value in [
    (V.UINT8, 200), (V.INT8, -100), (V.UINT16, 60000), (V.INT16, -30000), (V.UINT32, 4_000_000_000),
    (V.INT32, -2_000_000_000), (V.UINT64, 2**63 + 1), (V.INT64, -(2**63)), (V.FLOAT32, 0.1),
    (V.FLOAT64, 0.1), (V.BOOL, True), (V.STRING, "ahoy, naïve ⚓"),
]:
    w.add_key_value(f"scalar.{kind.name.lower()}", value, kind)
for kind, value in [
    (V.INT32, [1, -2, 3]), (V.FLOAT32, [0.5, -0.25]), (V.BOOL, [True, False]), (V.STRING, ["a", "", "Ġc"]),
    (V.UINT32, [7, 8]),
]:
    w.add_key_value(f"array.{kind.name.lower()}", value, V.ARRAY, kind)

expected = []
for t in TYPES:
    block, size = GGML_QUANT_SIZES[t]
    n = COLS // block
    if t == T.F32:
        data = rng.standard_normal((ROWS, COLS)).astype(np.float32)
        w.add_tensor(f"{t.name}.weight", data)
        expected.append(data)
        continue
    raw = rng.integers(0, 256, (ROWS * n, size), dtype=np.uint8)
    for at in HALVES.get(t, []):
        bits = rng.integers(0, 0x7C00, ROWS * n, dtype=np.uint16) | (rng.integers(0, 2, ROWS * n, dtype=np.uint16) << 15)
        raw[:, at : at + 2] = bits.view(np.uint8).reshape(-1, 2)
    if t == T.BF16:  # finite only
        raw[:, 1] &= 0xBF
    raw = raw.reshape(ROWS, n * size)
    w.add_tensor(f"{t.name}.weight", raw, raw_dtype=t)
    expected.append(quants.dequantize(raw, t).astype(np.float32).reshape(ROWS, COLS))

w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
all_ = np.concatenate([e.ravel() for e in expected])
assert np.isfinite(all_).all()
all_.astype("<f4").tofile(os.path.join(here, "blocks.f32"))
