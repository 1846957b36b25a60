"""The server files of the notes' models, and the chat template that comes with one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import pytest

from tautools.errors import ParamsError
from tautools.params import list_params, load_server
from tautools.params.models import SiteParams
from tautools.servers.vllm.command import server_argv

TEMPLATE = "llama31_headers_hermes_calls.jinja"


def words(name: str, workspace: Path) -> list[str]:
    return server_argv(load_server(name, workspace=workspace), SiteParams(name="s"), port=1, alias="a")


def flag(argv: list[str], name: str) -> str | None:
    return argv[argv.index(name) + 1] if name in argv else None


@pytest.mark.parametrize(
    ("name", "cards", "share", "parser"),
    [
        ("qwen3-4b", None, "0.85", "hermes"),
        ("qwen3-8b", None, "0.85", "hermes"),
        ("qwen3-14b", None, "0.85", "hermes"),
        ("qwen3-32b", "2", "0.85", "hermes"),
        ("qwen3-8b-instruct-2507", None, "0.85", "hermes"),
        ("qwen3-14b-instruct-2507", None, "0.85", "hermes"),
        ("qwen3-32b-instruct-2507", "2", "0.85", "hermes"),
        ("qwen3-32b-fp8", None, "0.95", "hermes"),
        ("gpt-oss-20b", None, "0.95", "openai"),
        ("qwen3-next-80b-a3b-fp8", "2", "0.88", "hermes"),
        ("nemotron-orchestrator-8b", None, "0.95", "hermes"),
    ],
)
def test_each_model_of_the_notes_has_its_file(
    tmp_path: Path, name: str, cards: str | None, share: str, parser: str
) -> None:
    argv = words(name, tmp_path)

    assert flag(argv, "--tensor-parallel-size") == cards
    assert flag(argv, "--gpu-memory-utilization") == share
    assert flag(argv, "--tool-call-parser") == parser
    assert "--enable-auto-tool-choice" in argv
    assert flag(argv, "--max-model-len") is not None


def test_models_that_think_by_default_are_asked_not_to(tmp_path: Path) -> None:
    silent = {name for name in list_params("servers") if "--default-chat-template-kwargs" in words(name, tmp_path)}

    assert silent == {"qwen3-8b", "qwen3-14b", "qwen3-32b", "qwen3-32b-fp8"}


def test_the_large_mixture_drafts_four_tokens(tmp_path: Path) -> None:
    drafting = flag(words("qwen3-next-80b-a3b-fp8", tmp_path), "--speculative-config")

    assert drafting == '{"method": "qwen3_next_mtp", "num_speculative_tokens": 4}'


def test_a_template_is_found_by_its_name_and_the_workspaces_own_wins(tmp_path: Path) -> None:
    shipped = load_server("nemotron-orchestrator-8b", workspace=tmp_path).vllm.chat_template
    assert shipped is not None
    assert Path(shipped).is_file()

    own = tmp_path / "params" / "templates" / TEMPLATE
    own.parent.mkdir(parents=True)
    own.write_text("{{ messages }}")

    assert load_server("nemotron-orchestrator-8b", workspace=tmp_path).vllm.chat_template == str(own)


def test_a_template_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"no chat template 'nope\.jinja'"):
        load_server("qwen3-4b", workspace=tmp_path, overrides=["vllm.chat_template=nope.jinja"])


def rendered(tmp_path: Path, **given: Any) -> str:
    file = load_server("nemotron-orchestrator-8b", workspace=tmp_path).vllm.chat_template
    assert file is not None
    # As transformers makes it.
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return env.from_string(Path(file).read_text()).render(**given)


def test_the_template_writes_a_conversation_with_tools(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}
    call = {"id": "1", "type": "function", "function": {"name": "get", "arguments": {"id": 'a"b'}}}
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]

    text = rendered(tmp_path, messages=messages, tools=[tool], add_generation_prompt=True)

    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert text.startswith(head.format("system") + "Be kind.\n\nThese functions")
    assert '"name": "get"' in text.partition("</tools>")[0]
    assert head.format("user") + "Hello<|eot_id|>" in text
    asked = '<tool_call>\n{"name": "get", "arguments": {"id": "a\\"b"}}\n</tool_call><|eot_id|>'
    assert head.format("assistant") + asked in text
    assert head.format("ipython") + "42<|eot_id|>" in text
    assert text.endswith("<|eot_id|>" + head.format("assistant"))


def test_the_template_needs_neither_system_message_nor_tools(tmp_path: Path) -> None:
    text = rendered(tmp_path, messages=[{"role": "user", "content": "Hi"}], add_generation_prompt=False)

    assert text == "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
