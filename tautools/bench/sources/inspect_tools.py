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

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from inspect_ai.model._call_tools import (
    get_type_hints,
    parse_tool_call,
    resolve_tool_content,
    tool_call_error,
    tool_param,
    type_hint_includes_none,
)
from inspect_ai.tool import ToolDef
from inspect_ai.tool._tool import ToolParsingError
from inspect_ai.tool._tool_info import ToolInfo
from inspect_ai.util._json import json_schema_dump

from tautools.bench.sources.bounds import MAX_DEPTH, MAX_PARSED_CHARS, why_too_large
from tautools.bench.types import Observation
from tautools.imports import without_iri_grammar
from tautools.llm.types import ToolSpec

with without_iri_grammar():
    from jsonschema import Draft7Validator


@dataclass(frozen=True, slots=True)
class _PreparedTool:
    run: Callable[..., Any]
    validator: Any
    parameters: tuple[tuple[str, Any, Any, bool], ...]
    """Name, type, default and whether None is allowed, of each."""
    max_output: int | None


class InspectTools:
    """The tools of one env, ready to be called for any number of conversations.

    `makers` are the package's `all_<env>_tools`, `getter` is the name of the function by which they find their tool
    class, and `find` does what that function does, given what `call` is given as `toolkit`.
    """

    def __init__(
        self, makers: Sequence[Callable[[], Any]], getter: str, find: Callable[[Any], Any] = lambda toolkit: toolkit
    ) -> None:
        definitions = [ToolDef(make()) for make in makers]
        self._bound: ContextVar[Any] = ContextVar(getter)
        names = {getter: lambda: find(self._bound.get())}
        self._tools = {definition.name: _prepare(definition, names) for definition in definitions}
        self._infos = [
            ToolInfo(name=each.name, description=each.description, parameters=each.parameters) for each in definitions
        ]

    @property
    def specs(self) -> list[ToolSpec]:
        """The tools as inspect's OpenAI provider sends them, without its `strict` flag."""
        functions = [
            {"name": info.name, "description": info.description, "parameters": json_schema_dump(info.parameters)}
            for info in self._infos
        ]
        return [{"type": "function", "function": function} for function in functions]

    async def call(self, toolkit: Any, name: str, arguments: str) -> Observation:
        """Call one tool on `toolkit`, the conversation's own instance of the env's tool class, or what has it."""
        if reason := why_too_large(arguments) or _why_not_parsed(name, arguments):
            return Observation.too_large(reason)
        try:
            call = parse_tool_call("", name, arguments, self._infos)
            read = json.dumps(call.arguments, default=str)
        except Exception as error:  # noqa: BLE001 - a digit too many, a date that is none: inspect ends the sample
            return Observation(f"Error: {error}", error=True, unreadable=True)
        if call.parse_error:
            return Observation(f"Error: {call.parse_error}", error=True, arguments=read, unreadable=True)
        try:
            return Observation(await self._run(toolkit, name, call.arguments), arguments=read)
        except Exception as error:  # noqa: BLE001 - a tool's failure is something for the model to read
            mapped = tool_call_error(error, name)
            text = error if mapped is None else mapped.error.message
            return Observation(f"Error: {text}", error=True, arguments=read)

    async def _run(self, toolkit: Any, name: str, arguments: dict[str, Any]) -> str:
        tool = self._tools.get(name)
        if tool is None:
            raise ToolParsingError(f"Tool {name} not found")
        problems = list(tool.validator.iter_errors(arguments))
        if problems:
            head = f"Found {len(problems)} validation errors parsing tool input arguments:"
            raise ToolParsingError("\n".join([head, *(f"- {problem.message}" for problem in problems)]))
        coerced = _coerce(tool, arguments)
        token = self._bound.set(toolkit)
        try:
            result = await tool.run(**coerced)
        finally:
            self._bound.reset(token)
        return str(resolve_tool_content(result, name, tool.max_output).content)


_ALIASES = re.compile(r"&\w.*\*\w", re.DOTALL)
"""In YAML a name for a part and its repetition: a few lines make a billion values."""


def _why_not_parsed(name: str, arguments: str) -> str:
    """Return why a text is not given to a parser other than JSON's: the calculator's, or YAML's, which inspect asks."""
    as_yaml = not arguments.lstrip().startswith("{")
    if (as_yaml or name == "calculate") and len(arguments) > MAX_PARSED_CHARS:
        return f"the arguments are longer than {MAX_PARSED_CHARS} characters"
    if as_yaml and arguments.count("[") + arguments.count("{") > MAX_DEPTH:
        return f"the arguments hold more than {MAX_DEPTH} brackets and are not a JSON object"
    return "the arguments repeat parts of themselves" if as_yaml and _ALIASES.search(arguments) else ""


def _coerce(tool: _PreparedTool, arguments: dict[str, Any]) -> dict[str, Any]:
    """Do what inspect's `tool_params` does, with types and defaults read before."""
    coerced: dict[str, Any] = {}
    for name, hint, default, may_be_none in tool.parameters:
        if name in arguments:
            coerced[name] = tool_param(hint, arguments[name])
        elif default is inspect.Parameter.empty and not may_be_none:
            raise ToolParsingError(f"Required parameter {name} not provided to tool call.")
        else:
            coerced[name] = None if default is inspect.Parameter.empty else default
    return coerced


def _prepare(definition: Any, names: Mapping[str, Any]) -> _PreparedTool:
    """Prepare a tool in whose function some of its module's `names` mean something else."""
    tool = definition.tool
    scope = {**tool.__globals__, **names}
    run = FunctionType(tool.__code__, scope, tool.__name__, tool.__defaults__, tool.__closure__)
    run.__kwdefaults__ = tool.__kwdefaults__
    hints = get_type_hints(tool)
    return _PreparedTool(
        run=run,
        validator=Draft7Validator(definition.parameters.model_dump(exclude_none=True)),
        parameters=tuple(
            (name, hints[name], parameter.default, type_hint_includes_none(hints[name]))
            for name, parameter in inspect.signature(tool).parameters.items()
        ),
        max_output=definition.max_output,
    )
