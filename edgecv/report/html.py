"""A very small builder of HTML and SVG: everything is escaped unless it was built here."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Union

from edgecv.report.words import ABSENT, clean

__all__ = ["Child", "Html", "el", "figure", "join"]

_VOID = frozenset({"br", "input", "link", "meta"})


@dataclass(frozen=True)
class Html:
    """Markup that is already safe."""

    text: str


Child = Union[str, Html, None]


def el(tag: str, *children: Child, **attributes: str | float | bool | None) -> Html:
    """One element. A str child is escaped; None is left out.

    In attribute names ``_`` becomes ``-`` and a trailing ``_`` is dropped (``class_``); True gives
    a bare attribute, False and None none.
    """
    parts = [f"<{tag}"]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        parts.append(f" {name.rstrip('_').replace('_', '-')}")
        if value is not True:
            parts.append(f'="{html.escape(clean(str(value), lines=True), quote=True)}"')
    parts.append(">")
    if tag not in _VOID:
        parts.append(join(children).text)
        parts.append(f"</{tag}>")
    return Html("".join(parts))


def join(children: Iterable[Child]) -> Html:
    """Children one after the other; strings are escaped."""
    texts = []
    for child in children:
        if isinstance(child, Html):
            texts.append(child.text)
        elif child is not None:
            texts.append(html.escape(clean(child, lines=True), quote=True))
    return Html("".join(texts))


def figure(text: str, value: float | None, field: str, **where: str | None) -> Html:
    """A number that can be read back: ``data-field``, ``data-value`` and what else ``where`` names.

    ``where`` holds names such as ``data_artifact``; the value has all its digits.
    """
    exact = "" if value is None else repr(float(value)) if isinstance(value, float) else str(value)
    if value is None and text == ABSENT:
        gap = el("span", "not measured", class_="sr")
        return el(
            "span",
            el("span", ABSENT, aria_hidden="true"),
            gap,
            class_="n gap",
            data_field=field,
            data_value="",
            **where,
        )
    return el("span", text, class_="n", data_field=field, data_value=exact, **where)
