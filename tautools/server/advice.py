"""What is worth saying of a server file before it is started, though it is no mistake for sure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.server.vllm.families import first_release_of, tool_parser_of

if TYPE_CHECKING:
    from tautools.params.models import ServerParams

__all__ = ["advice"]

_DRAFTING = {"speculative_config", "speculative-config"}


def advice(params: ServerParams) -> list[str]:
    """Return warnings about a server file, one sentence or two each."""
    if params.engine != "vllm":
        return []
    said = []
    meant = first_release_of(params.model)
    if meant is not None:
        said.append(
            f"The hub has no repository {params.model}: the 2507 release has no model of this size. "
            f"{meant} with `chat_template_kwargs: {{enable_thinking: false}}` is the nearest that exists "
            f"(server file `{meant.rpartition('/')[2].lower()}`)."
        )
    usual = tool_parser_of(params.model)
    parser = params.vllm.tool_call_parser
    if parser is None:
        name = f"`{usual}` for this family" if usual else "which one, the model's card tells"
        said.append(f"No `tool_call_parser` is set ({name}): every turn of the benchmark that uses tools is refused.")
    elif usual is not None and parser != usual:
        said.append(f"`tool_call_parser` is `{parser}`; models of this family mostly need `{usual}`.")
    if _DRAFTING & set(params.vllm.args) and (params.vllm.gpu_memory_utilization or 0.9) > 0.9:
        said.append("Drafting ahead needs memory of its own: above 0.9 `gpu_memory_utilization` it may run out.")
    return said
