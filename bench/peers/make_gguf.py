#!/usr/bin/env python3
"""Rewrites a GGUF file's matrices in another format, from its own weights: the same model as bf16 or q8_0.

    python make_gguf.py SmolLM2-135M-Instruct.Q4_1.gguf bf16 SmolLM2-135M-Instruct.bf16.gguf

Matrices are widened to fp32 and rounded to the new format; vectors (norms) stay fp32; all keys are copied. A file that
is there already is kept. bench/compare_llama.py calls this.
"""

import os
import sys

import gguf
import numpy as np

TYPES = {"bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0, "f32": gguf.GGMLQuantizationType.F32}
FILE_TYPES = {"bf16": gguf.LlamaFileType.MOSTLY_BF16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0, "f32": gguf.LlamaFileType.ALL_F32}


def rewrite(source, kind, target):
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type", "general.quantization_version"):
            continue
        sub = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for t in reader.tensors:
        data = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        to = TYPES[kind] if len(t.shape) > 1 else gguf.GGMLQuantizationType.F32
        data = data.reshape([int(n) for n in reversed(t.shape)])
        writer.add_tensor(t.name, gguf.quants.quantize(data, to), raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    if len(sys.argv) != 4 or sys.argv[2] not in TYPES:
        sys.exit(__doc__)
    source, kind, target = sys.argv[1:]
    if not os.path.exists(target):
        rewrite(source, kind, target + ".part")
        os.replace(target + ".part", target)  # a half-written file never has the name
    print(target)


if __name__ == "__main__":
    main()
