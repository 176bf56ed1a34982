"""The wire format of protobuf messages, as far as the protocol's few messages need it.

Source: the encoding guide of protobuf.dev. A message is its fields by number; what a field means is up to its reader.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | bytes
Message = Mapping[int, Sequence[Value]]
"""Numbers to the field's values in the order in which they came: integers, or bytes."""


def parse(data: bytes) -> Message:
    """The fields of a message. Raises ValueError for bytes that are no message."""
    fields: dict[int, list[Value]] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value: Value
        match tag & 7:
            case kind if kind == VARINT:
                value, at = _varint(data, at)
            case kind if kind == BYTES:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            case kind if kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
                value, at = data[at : at + size], at + size
            case kind:
                raise ValueError(f"a field of the unknown wire type {kind}")
        if at > len(data):
            raise ValueError("a message that ends within a field")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def integer(message: Message, number: int) -> int:
    """The last value of an integer field; 0 where there is none."""
    value = message.get(number, [0])[-1]
    return value if isinstance(value, int) else 0


def binary(message: Message, number: int) -> bytes:
    """The last value of a field of bytes; empty where there is none."""
    value = message.get(number, [b""])[-1]
    return value if isinstance(value, bytes) else b""


def text(message: Message, number: int) -> str:
    """The last value of a string field; empty where there is none."""
    return binary(message, number).decode()


def double(message: Message, number: int) -> float:
    """The last value of a field of doubles; 0.0 where there is none."""
    data = binary(message, number)
    return float(struct.unpack("<d", data)[0]) if data else 0.0


def parts(message: Message, number: int) -> list[Message]:
    """Every message of a repeated field."""
    return [parse(value) for value in message.get(number, []) if isinstance(value, bytes)]


def integers(message: Message, number: int) -> list[int]:
    """The values of a repeated field of integers, packed or not."""
    found: list[int] = []
    for value in message.get(number, []):
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            each, at = _varint(value, at)
            found.append(each)
    return found


def encode_integer(number: int, value: int) -> bytes:
    """A field that holds an integer of at least 0."""
    return _number(number << 3 | VARINT) + _number(value)


def encode_bytes(number: int, value: bytes | str) -> bytes:
    """A field that holds bytes, a text, or another message."""
    data = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | BYTES) + _number(len(data)) + data


def encode_double(number: int, value: float) -> bytes:
    """A field that holds a double."""
    return _number(number << 3 | FIXED64) + struct.pack("<d", value)


def encode_integers(number: int, values: Iterable[int]) -> bytes:
    """A packed field of integers of at least 0."""
    return encode_bytes(number, b"".join(_number(value) for value in values))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where the next field does."""
    value = shift = 0
    while at < len(data):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
    raise ValueError("a message that ends within a number")


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
