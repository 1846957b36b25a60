"""Keys as people have them: out of a variable, a file, a paste. One rule for all of them."""

import re

from tautools.errors import ParamsError
from tautools.redaction import remember_secret

_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}
_BEARER = re.compile(r"(?:authorization\s*:\s*)?bearer(?:\s+|$)", re.IGNORECASE)
_NOT_IN_A_KEY = re.compile(r"[^!#-&(-_a-~]")
"""Anything but printable ASCII without blanks and quotes, which is what keys are made of and a header can carry."""


def read_key(text: str, where: str) -> str:
    """Return a key without what copying leaves around it: white space, quotes, `Bearer`; empty when nothing is left.

    Parameters
    ----------
    text : str
        As it was found.
    where : str
        Its place for the error, such as `MY_KEY` or `the file /x/y.key`.

    Raises
    ------
    ParamsError
        When something inside it cannot be part of a key, such as a blank; the key is not shown.
    """
    key, before = text or "", None
    while key != before:
        before, key = key, _unwrapped(key)
    found = _NOT_IN_A_KEY.search(key)
    if found is None:
        remember_secret(key)
        return key
    raise ParamsError(
        f"The key in {where} cannot be used: there is {_named(found[0])} in it.",
        evidence=f"It is character {found.start() + 1} of {len(key)}; a key is letters, digits and signs of ASCII, "
        "without blanks and quotes.",
        next_step="Copy it once more, whole and alone; perhaps two lines, or a comment, came along.",
    )


def _unwrapped(text: str) -> str:
    plain = text.strip().strip(_INVISIBLE)
    if len(plain) > 1 and _QUOTES.get(plain[0]) == plain[-1]:
        plain = plain[1:-1]
    return _BEARER.sub("", plain, count=1) if _BEARER.match(plain) else plain


def _named(character: str) -> str:
    if character in "\r\n":
        return "a line break"
    if character.isspace():
        return "a blank"
    if character in _QUOTES or character in _QUOTES.values():
        return "a quote"
    return f"the character U+{ord(character):04X}"
