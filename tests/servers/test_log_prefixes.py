"""The cause of a failure is the same under every prefix of its lines, and under prefixes of prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_prefixes import NESTED, OUTER, WRITERS
from staged_failures import STAGED, WRAPPER

from tautools.servers.diagnose import Diagnosis, diagnose_log, known_failures
from tautools.servers.vllm.log import read_messages

HEAD = ["Traceback (most recent call last):", '  File "/x/core.py", line 709, in run', "    raise OSError('Errno 98')"]
UNKNOWN = "RuntimeError: The widget of the card is bent"
EVERY = 37
"""Of the known lines, so many prefixes share one round; each line meets some forty of them."""


def told(found: Diagnosis) -> tuple[str, str, str, str]:
    return found.id, found.kind, found.cause, found.evidence


def test_an_unknown_error_is_told_under_every_prefix() -> None:
    for name, prefix in NESTED.items():
        found = diagnose_log([*map(prefix, [*HEAD, UNKNOWN]), WRAPPER])
        assert told(found) == ("", "unknown", UNKNOWN, UNKNOWN), name


def test_a_known_cause_is_the_same_under_every_prefix() -> None:
    for number, (name, prefix) in enumerate(NESTED.items()):
        for staged in STAGED[number % EVERY :: EVERY]:
            end = {"exit_code": staged.exit_code, "job_state": staged.job_state}
            lines = [*HEAD, staged.line, WRAPPER]
            found = diagnose_log([prefix(line) for line in lines], **end)
            assert told(found) == told(diagnose_log(lines, **end)), (name, staged.row)


@pytest.mark.parametrize("level", ["INFO", "WARNING", "DEBUG"])
def test_a_known_text_is_no_cause_when_its_line_calls_itself_less_than_an_error(level: str) -> None:
    in_logs = [staged for staged in STAGED if not staged.line.startswith("ERROR")]
    assert len(in_logs) > len(known_failures()) / 2
    for outer in OUTER.values():
        prefix = f"{outer}(EngineCore pid=11) {level} 12-01 10:00:00 [core.py:708] "
        for staged in in_logs[::5]:
            assert diagnose_log([prefix + staged.line]).kind == "no_failure", (outer, staged.row)


def test_the_writers_of_mixed_lines_are_kept_apart() -> None:
    lines = [f"{task}: {line}" for line in [*HEAD, UNKNOWN] for task in (0, 1)]

    assert [message.text for message in read_messages(lines)] == [UNKNOWN]


def test_a_message_that_looks_like_a_prefix_is_kept() -> None:
    for text in (
        "vllm: error: unrecognized arguments: --x",
        "slurmstepd: error: execve(): vllm: gone",
        "[Rank:0] FATAL",
    ):
        assert [message.text for message in read_messages([text])] == [text]


PIECES = [
    *OUTER.values(),
    *WRITERS.values(),
    *HEAD,
    UNKNOWN,
    WRAPPER,
    " ",
    "\r",
    "\x00",
    "}",
    '{"log": 1}',
    '{"message": "x',
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=5).map("".join), max_size=8))
def test_no_log_makes_the_reader_fail(lines: list[str]) -> None:
    found = diagnose_log(lines)

    assert found.cause
    assert found.fix
