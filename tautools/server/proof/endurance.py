"""The rungs that take their time, climbed on request: the context limit, many chats at once, the same answer twice."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from tautools.errors import CallFault, ModelCallError
from tautools.server.proof.ladder import Climb, Finding
from tautools.server.proof.light import root_of
from tautools.server.proof.probe import ask, ask_at_once, short

if TYPE_CHECKING:
    from tautools.llm.types import Message

__all__ = ["length_limit", "many_at_once", "same_twice"]

_ANSWER_TOKENS = 8
_SPARE = 8
"""Tokens that a prompt near the limit leaves free beside those of its answer."""
_SAMPLES = (100, 1100)
"""Words of the two prompts from which the tokens per word are learnt."""
_PREEMPTIONS = re.compile(r"^vllm:num_preemptions_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_STORY: list[Message] = [{"role": "user", "content": "Tell in three sentences how bread is baked."}]


def length_limit(state: Climb) -> Finding:
    """Rung 8: a prompt just below the served length is answered, one above it is refused with a clean 400."""
    limit = state.models.length_of(state.model) if state.models is not None else None
    if limit is None:
        return Finding(None, "the server does not tell its context length")
    few, many = (_prompt_tokens(state, words) for words in _SAMPLES)
    if not few or not many or many <= few:
        return Finding(None, "the server does not tell how many tokens a prompt has")
    per_word = (many - few) / (_SAMPLES[1] - _SAMPLES[0])
    overhead = few - per_word * _SAMPLES[0]
    below = int((limit - _ANSWER_TOKENS - _SPARE - overhead) / per_word)
    if below < 1:
        return Finding(None, f"{limit} tokens of context are too few to try")
    try:
        told = _prompt_tokens(state, below)
    except ModelCallError as error:
        return Finding(False, f"about {limit - _SPARE} of {limit} tokens are not answered: {_why(error)}")
    above = int((limit + _SPARE - overhead) / per_word) + 1
    refusal = _refusal(state, above)
    if refusal:
        return Finding(False, f"more than {limit} tokens: {refusal}")
    return Finding(True, f"{told} of {limit} tokens are answered, more are refused with 400")


def _prompt_tokens(state: Climb, words: int) -> int:
    reply = ask(state.endpoint, _filler(words), max_tokens=_ANSWER_TOKENS)
    return reply.record.prompt_tokens or 0


def _filler(words: int) -> list[Message]:
    return [{"role": "user", "content": " ".join(["a"] * words)}]


def _refusal(state: Climb, words: int) -> str:
    """Return what is wrong with the refusal of a prompt that is too long; empty when nothing is."""
    try:
        ask(state.endpoint, _filler(words), max_tokens=1)
    except ModelCallError as error:
        clean = error.fault is CallFault.CONTEXT_OVERFLOW and error.status == 400
        return "" if clean else f"the refusal is not a clean 400: {_why(error)}"
    return "they were answered, so the server cuts prompts without a word"


def many_at_once(state: Climb) -> Finding:
    """Rung 9: as many short chats at once as a run will hold all get their answer."""
    count = state.target.concurrency
    questions: list[list[Message]] = [
        [{"role": "user", "content": f"Order number {number}: say one sentence about it."}] for number in range(count)
    ]
    before = _preemptions(state)
    began = time.perf_counter()
    answers = ask_at_once(state.endpoint, questions, max_tokens=64)
    took_s = time.perf_counter() - began
    failed = [answer for answer in answers if isinstance(answer, ModelCallError)]
    if failed:
        return Finding(False, f"{len(failed)} of {count} chats at once were not answered: {_why(failed[0])}")
    slowest = max(a.record.e2e_s or 0.0 for a in answers if not isinstance(a, ModelCallError))
    said = f"{count} chats at once answered in {took_s:.2f} s, the slowest in {slowest:.2f} s"
    after = _preemptions(state)
    if before is None or after is None:
        return Finding(True, said)
    pushed_out = int(after - before)
    if pushed_out > count:
        return Finding(False, f"{said}, but {pushed_out} times one was pushed out of the KV cache: it is too small")
    return Finding(True, f"{said}, {pushed_out} preemptions")


def _preemptions(state: Climb) -> float | None:
    try:
        answer = state.http.get(f"{root_of(state.target.base_url)}/metrics", key=state.target.key)
    except ModelCallError:
        return None
    found = _PREEMPTIONS.findall(answer.text) if answer.status == 200 else []
    return sum(float(value) for value in found) if found else None


def same_twice(state: Climb) -> Finding:
    """Rung 10: whether the same question has the same answer at temperature 0; a note, never a failure."""
    first, second = (ask(state.endpoint, _STORY, max_tokens=128) for _ in range(2))
    if (first.text, first.thinking) == (second.text, second.thinking):
        return Finding(True, "the same text twice at temperature 0")
    at = next((i for i, (a, b) in enumerate(zip(first.text, second.text, strict=False)) if a != b), 0)
    return Finding(None, f"not deterministic: at temperature 0 two answers differ from character {at} on")


def _why(error: ModelCallError) -> str:
    return short(" ".join(part for part in (error.problem, error.evidence) if part), 200)
