"""Addresses without their secrets: what may stand in messages, events and reports."""

from __future__ import annotations

import re

# From the start of a word that holds a colon to its last "@": user and password, also where those hold "@" or "/".
_LOGIN = re.compile(r"([a-zA-Z][\w+.-]*://)?[^\s'\"=]*:[^\s'\"]*@")
_QUERY = re.compile(r"(\w+://[^\s'\"?#]*)[?#][^\s'\"]*")
_PROPERTY = re.compile(
    r"\b((?:[\w-]*(?:user-id|user-pw|password|passwd|passphrase|token|secret))\s*=\s*)(\"[^\"]*\"|\S+)", re.I
)


def masked(address: str) -> str:
    """A network address without user, password and query."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return hidden(address)
    if "@" in rest:
        rest = "***@" + rest.rpartition("@")[2]
    return scheme + separator + re.split(r"[?#]", rest, maxsplit=1)[0]


def hidden(text: str, address: str = "") -> str:
    """A text without the secrets of the addresses in it; ``address`` is one that is known to occur."""
    if address:
        text = text.replace(address, masked(address))
    text = _LOGIN.sub(lambda found: f"{found[1] or ''}***@", text)
    return _PROPERTY.sub(r"\1***", _QUERY.sub(r"\1", text))
