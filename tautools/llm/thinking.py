"""What a model only thought is kept apart from what it said.

Servers with a reasoning parser stream thinking in a field of its own; those without leave it in the text, between
`<think>` and `</think>`. Templates of Qwen and others open the tag in the prompt, so the text may hold the closing tag
alone. The whole text is cut at once, when it is complete: how the tags were spread over chunks does not matter.
"""

from __future__ import annotations

import re

__all__ = ["separate"]

_TAG = re.compile(r"(</?think>)")


def separate(text: str) -> tuple[str, str]:
    """Return `text` without its thinking, and the thinking.

    What stands before a closing tag was thought, with or without an opening one; what follows an opening tag that is
    never closed was thought too. A text without tags is returned as it is.
    """
    if "think>" not in text:
        return text, ""
    said: list[str] = []
    thought: list[str] = []
    thinking = False
    for part in _TAG.split(text):
        if part == "<think>":
            thinking = True
        elif part == "</think>":
            if not thinking and said:
                thought.append(said.pop())
            thinking = False
        else:
            (thought if thinking else said).append(part)
    if len(said) == 1 and not thought:
        return text, ""
    return "".join(said).strip(), "".join(thought).strip()
