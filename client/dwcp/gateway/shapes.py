"""etcd's JSON (protobuf's mapping, as its gateway speaks it) to operations, and results to JSON.

In: names in snake_case or lowerCamelCase; bytes in base64, with either alphabet, padded or not;
64-bit numbers as strings or numbers; enums by name or number; what is unknown is skipped, null is
the default. Out: snake_case, 64-bit numbers as strings, and nothing that has its default value.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message

from dwcp.errors import INVALID_ARGUMENT
from dwcp.wire.operations import (
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Result,
    TxnRequest,
    TxnResponse,
)

Json = dict[str, Any]
_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_Message = TypeVar("_Message", bound=Message)
_decoder: Final = json.JSONDecoder()

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
TXN_OPERATIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "request_range": RangeRequest,
    "request_put": PutRequest,
    "request_delete_range": DeleteRangeRequest,
    "request_txn": TxnRequest,
}
"""The members of etcd's RequestOp."""


class ShapeError(Exception):
    """The JSON is not what it should be; the message names the field."""

    code = INVALID_ARGUMENT


def decode_json(body: bytes) -> Json:
    """A JSON object; an empty body is an empty one. Raises ShapeError."""
    if not body.strip():
        return {}
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ShapeError(f"the body is not JSON: {problem}") from None
    if not isinstance(found, dict):
        raise ShapeError("the body is not a JSON object")
    return found


def decode_many(body: bytes) -> list[Json]:
    """JSON objects that stand one after the other; an empty body is an empty one.

    Raises ShapeError.
    """
    text = body.decode("utf-8", errors="replace").strip()
    found: list[Json] = []
    at = 0
    while at < len(text):
        try:
            one, at = _decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise ShapeError(f"the body is not JSON: {error}") from None
        if not isinstance(one, dict):
            raise ShapeError("the body is not of JSON objects")
        found.append(one)
        while at < len(text) and text[at].isspace():
            at += 1
    return found or [{}]


def message_of(kind: type[_Message], found: Json) -> _Message:
    """The message that the JSON describes. Raises ShapeError."""
    try:
        return json_format.ParseDict(found, kind(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise ShapeError(f"the body is no {kind.__name__}: {error}") from None


def json_of(message: Message) -> Json:
    """The JSON of a message: what has its default value is left out."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def request_of(kind: type[_Struct], found: Json) -> _Struct:
    """The operation that the JSON describes. Raises ShapeError."""
    try:
        made = _struct(kind, found, "")
    except RecursionError:
        raise ShapeError("transactions are nested too deeply") from None
    assert isinstance(made, kind), "a structure is made of its own kind"
    return made


def response_of(result: Result, revision: int) -> Json:
    """The JSON of a result, without its header; `revision` stands in those of a transaction."""
    match result:
        case PutResponse(prev_kv):
            return _given(prev_kv=None if prev_kv is None else _kv(prev_kv))
        case RangeResponse(kvs, more, count):
            return _given(kvs=[_kv(kv) for kv in kvs], more=more, count=_number(count))
        case DeleteRangeResponse(deleted, prev_kvs):
            return _given(deleted=_number(deleted), prev_kvs=[_kv(kv) for kv in prev_kvs])
        case TxnResponse(succeeded, responses):
            inner = [_response_op(one, revision) for one in responses]
            return _given(succeeded=succeeded, responses=inner)
        case CompactionResponse():
            return {}
        case _:
            raise ShapeError(f"{type(result).__name__} has no JSON here")


# --- in ----------------------------------------------------------------------------------------


def _struct(kind: type[msgspec.Struct], found: object, where: str) -> Any:
    if not isinstance(found, Mapping):
        raise ShapeError(f"{where or 'the body'} is not an object")
    values: Json = {}
    for field in _fields(kind):
        value = _named(found, field.name, where)
        if value is not None:
            values[field.name] = _value(field.type, value, _join(where, field.name))
        elif field.required:
            # protobuf knows no required fields: what is not given is empty, or 0
            values[field.name] = b"" if field.type is bytes else 0
    return kind(**values)


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _named(found: Mapping[str, object], name: str, where: str) -> object:
    """A field by either of its names."""
    camel = re.sub(r"_([a-z])", lambda match: match[1].upper(), name)
    if camel != name and name in found and camel in found:
        raise ShapeError(f"{_join(where, name)} is given twice, as {camel} too")
    return found.get(name, found.get(camel))


def _value(kind: Any, value: object, where: str) -> object:
    """One field's value, by the type it has in the operation."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if kind is bytes:
        return _bytes(value, where)
    if kind is int:
        return _int64(value, where)
    if kind is bool:
        if not isinstance(value, bool):
            raise ShapeError(f"{where} is not true or false")
        return value
    if get_origin(kind) is Literal:
        return _enum(get_args(kind), value, where)
    assert get_origin(kind) is tuple, f"{where} has a type that JSON can not give: {kind}"
    if not isinstance(value, list):
        raise ShapeError(f"{where} is not a list")
    (item, _) = get_args(kind)
    one = _struct if isinstance(item, type) else _request_op
    return tuple(one(item, each, f"{where}[{at}]") for at, each in enumerate(value))


def _request_op(_kind: Any, found: object, where: str) -> object:
    """One operation of a transaction."""
    if not isinstance(found, Mapping):
        raise ShapeError(f"{where} is not an object")
    named = {name: _named(found, name, where) for name in TXN_OPERATIONS}
    given = {name: value for name, value in named.items() if value is not None}
    if len(given) != 1:
        raise ShapeError(f"{where} is not one of {', '.join(TXN_OPERATIONS)}")
    ((name, value),) = given.items()
    return _struct(TXN_OPERATIONS[name], value, _join(where, name))


def _bytes(value: object, where: str) -> bytes:
    if not isinstance(value, str):
        raise ShapeError(f"{where} is not a string in base64")
    text = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ShapeError(f"{where} is not base64") from None


def _int64(value: object, where: str) -> int:
    number: int | None = None
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value, re.ASCII):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None or not INT64_MIN <= number <= INT64_MAX:
        raise ShapeError(f"{where} is not a whole number of 64 bits")
    return number


def _enum(names: tuple[str, ...], value: object, where: str) -> str:
    if isinstance(value, str) and value in names:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    raise ShapeError(f"{where} is not one of {', '.join(names)}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


# --- out ---------------------------------------------------------------------------------------


def _response_op(result: Result, revision: int) -> Json:
    """One result of a transaction, under the name that etcd's ResponseOp has for it."""
    match result:
        case PutResponse():
            name = "response_put"
        case RangeResponse():
            name = "response_range"
        case DeleteRangeResponse():
            name = "response_delete_range"
        case _:
            name = "response_txn"
    return {name: {"header": {"revision": str(revision)}, **response_of(result, revision)}}


def _kv(kv: KeyValue) -> Json:
    return _given(
        key=_text(kv.key),
        create_revision=_number(kv.create_revision),
        mod_revision=_number(kv.mod_revision),
        version=_number(kv.version),
        value=_text(kv.value),
        lease=_number(kv.lease),
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _number(value: int) -> str:
    return str(value) if value else ""


def _given(**fields: object) -> Json:
    """What differs from its default."""
    return {name: value for name, value in fields.items() if value}
