"""inspect's tools and the way inspect calls them, prepared once instead of at every call.

inspect builds a tool's definition, its JSON schema validator and its signature again for each call, and keeps the
database in a store that is validated at each access. Here the same parts do the same work on the same inputs: the
package's `parse_tool_call`, its schema under the same Draft 7 validator, its `tool_param` coercion, its tool functions,
its `tool_call_error` texts and its truncation. Only the preparation is done once per process, and the tool functions'
`get_<env>_tools` is bound to the current conversation.

One deviation: an exception that inspect does not map to a tool error (a pydantic `ValidationError`, say, for a
passenger without a birth date) escapes inspect's tool loop and makes its agent's whole turn vanish. Here the model gets
the error's text as the tool's answer, as in tau2-bench itself.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from tautools.bench.types import Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tautools.llm.types import ToolSpec


_NO_DEFAULT = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class _ToolParameter:
    name: str
    hint: Any
    default: Any
    may_be_none: bool


@dataclass(frozen=True, slots=True)
class _PreparedTool:
    name: str
    run: Callable[..., Any]
    validator: Any
    parameters: tuple[_ToolParameter, ...]
    max_output: int | None


class InspectTools:
    """The tools of one env, ready to be called for any number of conversations."""

    def __init__(self, tools: Mapping[str, _PreparedTool], infos: Sequence[Any], bound: ContextVar[Any]) -> None:
        self._tools = tools
        self._infos = infos
        self._bound = bound

    @property
    def specs(self) -> list[ToolSpec]:
        """The tools as inspect's OpenAI provider sends them, without its `strict` flag."""
        from inspect_ai.util._json import json_schema_dump

        return [
            {
                "type": "function",
                "function": {
                    "name": info.name,
                    "description": info.description,
                    "parameters": json_schema_dump(info.parameters),
                },
            }
            for info in self._infos
        ]

    async def call(self, toolkit: Any, name: str, arguments: str) -> Observation:
        """Call one tool on `toolkit`, the conversation's own instance of the env's tool class, or what has it."""
        from inspect_ai.model._call_tools import parse_tool_call

        call = parse_tool_call("", name, arguments, self._infos)
        echoed = json.dumps(call.arguments)
        if call.parse_error:
            return Observation(f"Error: {call.parse_error}", error=True, arguments=echoed, unreadable=True)
        try:
            text = await self._run(toolkit, name, call.arguments)
        except Exception as error:  # noqa: BLE001 - a tool's failure is something for the model to read
            return Observation(f"Error: {_error_text(error, name)}", error=True, arguments=echoed)
        return Observation(text, arguments=echoed)

    async def _run(self, toolkit: Any, name: str, arguments: dict[str, Any]) -> str:
        from inspect_ai.model._call_tools import resolve_tool_content
        from inspect_ai.tool._tool import ToolParsingError

        tool = self._tools.get(name)
        if tool is None:
            raise ToolParsingError(f"Tool {name} not found")
        problems = list(tool.validator.iter_errors(arguments))
        if problems:
            head = f"Found {len(problems)} validation errors parsing tool input arguments:"
            raise ToolParsingError("\n".join([head, *(f"- {problem.message}" for problem in problems)]))
        coerced = _coerce(tool.parameters, arguments)
        token = self._bound.set(toolkit)
        try:
            result = await tool.run(**coerced)
        finally:
            self._bound.reset(token)
        return str(resolve_tool_content(result, name, tool.max_output).content)


def _error_text(error: Exception, name: str) -> str:
    from inspect_ai.model._call_tools import tool_call_error

    mapped = tool_call_error(error, name)
    return str(error) if mapped is None else str(mapped.error.message)


def _coerce(parameters: Sequence[_ToolParameter], arguments: dict[str, Any]) -> dict[str, Any]:
    """Do what inspect's `tool_params` does, from a plan made beforehand."""
    from inspect_ai.model._call_tools import tool_param
    from inspect_ai.tool._tool import ToolParsingError

    coerced: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name in arguments:
            coerced[parameter.name] = tool_param(parameter.hint, arguments[parameter.name])
        elif parameter.default is not _NO_DEFAULT:
            coerced[parameter.name] = parameter.default
        elif parameter.may_be_none:
            coerced[parameter.name] = None
        else:
            raise ToolParsingError(f"Required parameter {parameter.name} not provided to tool call.")
    return coerced


def load_tools(
    makers: Sequence[Callable[[], Any]], getter: str, find: Callable[[Any], Any] = lambda toolkit: toolkit
) -> InspectTools:
    """Prepare an env's tools.

    Parameters
    ----------
    makers : sequence of callable
        The package's `all_<env>_tools`.
    getter : str
        Name of the function by which the tool functions find their tool class, such as `get_retail_tools`.
    find : callable
        Does what that function does, given what `InspectTools.call` is given as `toolkit`.
    """
    from inspect_ai.tool import ToolDef
    from inspect_ai.tool._tool_info import ToolInfo

    bound: ContextVar[Any] = ContextVar(getter)
    definitions = [ToolDef(make()) for make in makers]
    names = {getter: lambda: find(bound.get())}
    tools = {definition.name: _prepare(definition, names) for definition in definitions}
    infos = [ToolInfo(name=each.name, description=each.description, parameters=each.parameters) for each in definitions]
    return InspectTools(tools, infos, bound)


@contextlib.contextmanager
def without_iri_grammar() -> Iterator[None]:
    """Import jsonschema in a tenth of a second in place of one and a half.

    It builds a grammar for IRIs whenever it is imported, for a format check that neither notebooks nor the benchmark's
    tools ask for, and is ready for the grammar's package not to be there. So imports in the block find none; afterwards
    it can be imported as before. Nothing changes when jsonschema is loaded already.
    """
    grammar = "rfc3987_syntax"
    if "jsonschema" in sys.modules or grammar in sys.modules:
        yield
        return
    sys.modules[grammar] = None  # type: ignore[assignment]  # None is Python's word for "cannot be imported"
    try:
        yield
    finally:
        del sys.modules[grammar]


def _prepare(definition: Any, names: Mapping[str, Any]) -> _PreparedTool:
    with without_iri_grammar():
        from jsonschema import Draft7Validator

    function = definition.tool
    return _PreparedTool(
        name=definition.name,
        run=_rebind(function, names),
        validator=Draft7Validator(definition.parameters.model_dump(exclude_none=True)),
        parameters=_parameters_of(function),
        max_output=definition.max_output,
    )


def _rebind(function: FunctionType, names: Mapping[str, Any]) -> FunctionType:
    """Return the same function with some of its module's names meaning something else."""
    scope = {**function.__globals__, **names}
    copy = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _parameters_of(function: FunctionType) -> tuple[_ToolParameter, ...]:
    from inspect_ai.model._call_tools import get_type_hints, type_hint_includes_none

    hints = get_type_hints(function)
    return tuple(
        _ToolParameter(name, hints[name], parameter.default, type_hint_includes_none(hints[name]))
        for name, parameter in inspect.signature(function).parameters.items()
    )
