"""What a model may get wrong in a call: values of another kind, a key too many or too few, what is not JSON."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["ODD", "UNREADABLE", "mutated"]

ODD = st.sampled_from(
    [
        0,
        1,
        2,
        -1,
        2.0,
        2.5,
        -3.0,
        1e3,
        10**20,
        float("inf"),
        "",
        "2",
        "2.0",
        "x",
        "é\n",
        True,
        False,
        None,
        [],
        {},
        [2.0],
    ]
)
UNREADABLE = st.sampled_from(
    [
        "",
        "{",
        '{"order_id": ',
        "#W123",
        "[1, 2]",
        "null",
        '{"a": 1}{"b": 2}',
        '{}""',
        "true",
        "2.0",
        '{"a": NaN}',
        "{'a': 1}",
    ]
)


def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Change one place of a value: a leaf, a key more, a key less."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        kind = draw(st.sampled_from(["deeper", "deeper", "deeper", "drop", "add"]))
        if kind == "drop":
            return {name: kept for name, kept in value.items() if name != key}
        if kind == "add":
            return value | {"surplus": draw(ODD)}
        return value | {key: mutated(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], mutated(draw, value[index]), *value[index + 1 :]]
    if isinstance(value, int) and draw(st.booleans()):
        return draw(st.sampled_from([float(value), str(value), value + 1, value + 0.5]))
    return draw(ODD)
