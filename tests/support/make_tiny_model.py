#!/usr/bin/env python3
"""Write a tiny, random-weight, Qwen3-shaped chat model to a directory, with no download.

    python make_tiny_model.py OUT_DIR [--eos-bias 3.0] [--no-weights] ...

Needs only `tokenizers`, `numpy` and `safetensors` (no torch, no transformers); about a second.
The directory can be served by a real vLLM (`vllm serve OUT_DIR ...`) and opened by transformers.

Weights are random, except for one trick.  Residual channel 0 carries the same constant for every
token and no layer writes to it, so column 0 of lm_head acts as a per-token bias.  The bias makes the
tokens that end things (`<|im_end|>`, `"`, `}`, `]`) likelier, so that answers are short and
grammar-constrained JSON closes instead of running to max_tokens, greedily too.

`--first TOKEN=BIAS` makes some answers start with TOKEN (added to the vocabulary if need be):
`--first '<tool_call>=0.6'` on a server with `--tool-strict-level parameter` gives schema-valid tool
calls for about half of the requests with tools and tool_choice "auto" (temperature 0, or the
generation_config's 0.7 with top_k 20); `--first '###STOP###=2'` gives a user simulator that ends its
conversation now and then.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKUP = [
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
    "<think>",
    "</think>",
]

# A few lines to train the byte-level BPE on.
CORPUS = [
    "system user assistant tool You are a helpful customer service agent for an online shop.",
    "Hello, I would like to return the order I placed last week. Can you help me with that?",
    "Of course. Could you please give me your name, your zip code and the order number?",
    "The order was delivered and the refund goes to the original payment method.",
    '{"name": "get_order_details", "arguments": {"order_id": "#W0000000"}}',
    (
        '{"type": "function", "function": {"name": "f", "description": "d", "parameters": '
        '{"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}}}'
    ),
    "0123456789 0 1 2 3 4 5 6 7 8 9 true false null",
] * 4

# ChatML with tools, written for this project.  Understands tools, tool_calls, tool results and
# enable_thinking (off: an empty <think> block is put before the answer).
CHAT_TEMPLATE = """\
{%- set sys = messages[0].content if messages and messages[0].role == 'system' else '' -%}
{%- if sys or tools -%}
{{ '<|im_start|>system\\n' + sys }}
{%- if tools -%}
{{ '\\n\\n# Tools\\nTo call a function, answer with ' }}
{{- '<tool_call>{"name": NAME, "arguments": {...}}</tool_call>.\\n<tools>' }}
{%- for tool in tools -%}
{{ '\\n' + (tool | tojson) }}
{%- endfor -%}
{{ '\\n</tools>' }}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endif -%}
{%- for m in messages -%}
{%- if m.role == 'tool' -%}
{{ '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif m.role == 'assistant' -%}
{{ '<|im_start|>assistant\\n' + (m.content or '') }}
{%- for c in m.tool_calls or [] -%}
{%- set f = c.function or c -%}
{%- set args = f.arguments if f.arguments is string else f.arguments | tojson -%}
{{ '\\n<tool_call>\\n{"name": ' + (f.name | tojson) + ', "arguments": ' + args + '}\\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- elif not (loop.first and m.role == 'system') -%}
{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{ '<think>\\n\\n</think>\\n\\n' }}
{%- endif -%}
{%- endif -%}
"""


def make_tokenizer(vocab_size: int, more: list[str]):
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    n_base = vocab_size - len(SPECIAL) - len(MARKUP) - len(more)
    tok.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=n_base,
            special_tokens=[],
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKUP + more])
    return tok


def make_weights(cfg: dict, tok, seed: int, eos_bias: float, first: dict[str, float]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    h, v, inter = cfg["hidden_size"], cfg["vocab_size"], cfg["intermediate_size"]
    d, nq, nkv = cfg["head_dim"], cfg["num_attention_heads"], cfg["num_key_value_heads"]

    def rand(rows: int, cols: int, std: float) -> np.ndarray:
        return rng.normal(0.0, std, (rows, cols)).astype(np.float32)

    const = 1.0 * np.sqrt(h)  # channel 0, about as strong as all others together
    emb = rand(v, h, 1.0)
    emb[:, 0] = const
    w = {"model.embed_tokens.weight": emb, "model.norm.weight": np.ones(h, np.float32)}
    for i in range(cfg["num_hidden_layers"]):
        p = f"model.layers.{i}."
        w[p + "input_layernorm.weight"] = np.ones(h, np.float32)
        w[p + "post_attention_layernorm.weight"] = np.ones(h, np.float32)
        w[p + "self_attn.q_proj.weight"] = rand(nq * d, h, h**-0.5)
        w[p + "self_attn.k_proj.weight"] = rand(nkv * d, h, h**-0.5)
        w[p + "self_attn.v_proj.weight"] = rand(nkv * d, h, h**-0.5)
        w[p + "self_attn.o_proj.weight"] = rand(h, nq * d, (nq * d) ** -0.5)
        w[p + "self_attn.q_norm.weight"] = np.ones(d, np.float32)
        w[p + "self_attn.k_norm.weight"] = np.ones(d, np.float32)
        w[p + "mlp.gate_proj.weight"] = rand(inter, h, h**-0.5)
        w[p + "mlp.up_proj.weight"] = rand(inter, h, h**-0.5)
        w[p + "mlp.down_proj.weight"] = rand(h, inter, inter**-0.5)
        w[p + "self_attn.o_proj.weight"][0] = 0.0  # nothing writes to channel 0
        w[p + "mlp.down_proj.weight"][0] = 0.0
    head = rand(v, h, 1.5 * h**-0.5)  # random part: logits of about unit spread
    head[:, 0] = 0.0
    head[:, 1:] -= 0.1 * emb[:, 1:]  # do not repeat the last token (greedy would loop)
    x0 = np.sqrt(h / 3.0)  # channel 0 after the last norm, roughly
    bias = np.zeros(v, np.float32)
    for t in [*SPECIAL, *MARKUP, *first]:  # never babble markup ...
        bias[tok.token_to_id(t)] = -20.0
    bias[tok.token_to_id("<|im_end|>")] = eos_bias  # ... but do stop
    bias[tok.token_to_id('"')] = eos_bias
    bias[[tok.token_to_id(c) for c in "]}"]] = eos_bias - 1.0
    for c in range(256):  # no broken UTF-8 and no lone blanks in answers
        if not 32 < c < 127:  # (JSON grammars allow blanks without end)
            bias[tok.token_to_id(_byte_char(c))] = -20.0
    head[:, 0] = bias / x0
    nl = tok.token_to_id("\u010a")  # but do not stop right after "assistant\\n"
    head[tok.token_to_id("<|im_end|>"), 1:] -= 0.3 * emb[nl, 1:]
    for t, b in first.items():  # there, perhaps, put one of these tokens
        head[tok.token_to_id(t), 0] = (b - 3.0) / x0
        head[tok.token_to_id(t), 1:] = 0.3 * emb[nl, 1:]
    w["lm_head.weight"] = head
    return w


def _byte_char(b: int) -> str:
    """The character that stands for byte b in a byte-level BPE vocabulary (GPT-2's table)."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return chr(b) if b in keep else chr(256 + sorted(set(range(256)) - set(keep)).index(b))


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("out", type=Path)
    ap.add_argument("--hidden", type=int, default=64)
    ap.add_argument("--layers", type=int, default=2)
    ap.add_argument("--heads", type=int, default=2)
    ap.add_argument("--kv-heads", type=int, default=1)
    ap.add_argument("--head-dim", type=int, default=32)  # a size that vLLM's CPU attention knows
    ap.add_argument("--vocab", type=int, default=512)
    ap.add_argument("--max-position", type=int, default=131072)
    ap.add_argument("--eos-bias", type=float, default=3.0)
    ap.add_argument(
        "--first",
        action="append",
        default=[],
        metavar="TOKEN=BIAS",
        help="let some answers start with TOKEN; the higher BIAS, the more of them",
    )
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--no-weights", action="store_true", help="for vllm serve --load-format dummy")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)

    first = {t: float(b) for t, _, b in (f.rpartition("=") for f in a.first)}
    tok = make_tokenizer(a.vocab, [t for t in first if t not in MARKUP])
    tok.save(str(a.out / "tokenizer.json"))
    ids = {t: tok.token_to_id(t) for t in SPECIAL}
    vocab = -(-tok.get_vocab_size() // 64) * 64

    def dump(name: str, obj: dict) -> None:
        (a.out / name).write_text(json.dumps(obj, indent=2) + "\n")

    cfg = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "float32",
        "vocab_size": vocab,
        "hidden_size": a.hidden,
        "intermediate_size": 2 * a.hidden,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.kv_heads,
        "head_dim": a.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": a.max_position,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "initializer_range": 0.02,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    dump("config.json", cfg)
    dump(
        "generation_config.json",
        {
            "bos_token_id": ids["<|endoftext|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "do_sample": True,
            "temperature": 0.7,
            "top_p": 0.8,
            "top_k": 20,
        },
    )
    dump(
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": a.max_position,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "clean_up_tokenization_spaces": False,
            "add_bos_token": False,
        },
    )
    (a.out / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    if not a.no_weights:
        from safetensors.numpy import save_file

        save_file(
            make_weights(cfg, tok, a.seed, a.eos_bias, first), a.out / "model.safetensors", metadata={"format": "pt"}
        )
    size = sum(f.stat().st_size for f in a.out.iterdir())
    print(f"{a.out}: vocab {vocab}, {size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
