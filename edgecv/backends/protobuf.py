"""Reads the wire format of protobuf messages, without their package: a board has only its engine.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

_FIXED_BYTES = {1: 8, 5: 4}


def messages(content: memoryview, wanted: int) -> Iterator[memoryview]:
    """The bytes of every field number ``wanted``: sub-messages, texts, packed numbers.

    Raises:
        ValueError, IndexError: the bytes are no protobuf message.
    """
    for field, value in fields(content):
        if field == wanted and isinstance(value, memoryview):
            yield value


def fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers with their value: a whole number, or the bytes of everything else.

    Raises:
        ValueError, IndexError: the bytes are no protobuf message.
    """
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        field, kind = key >> 3, key & 7
        if kind == 0:
            number, position = _varint(content, position)
            yield field, number
            continue
        if kind == 2:
            length, position = _varint(content, position)
        elif kind in _FIXED_BYTES:
            length = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if position + length > len(content):
            raise ValueError(f"a field of {length} bytes at byte {position} is cut short")
        yield field, content[position : position + length]
        position += length


def integers(content: memoryview) -> Iterator[int]:
    """The whole numbers of a packed field."""
    position = 0
    while position < len(content):
        number, position = _varint(content, position)
        yield number


def _varint(content: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a number at byte {position} is too long")
