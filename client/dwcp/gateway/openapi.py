"""The OpenAPI document of the gateway's JSON, made from the messages' descriptors."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from dwcp.gateway.desk import ETCD_VERSION
from dwcp.gateway.services import METHODS, PATHS, UNARY

Json = dict[str, Any]

KV_PATHS: Final = {
    "/v3/kv/range": "KV.Range",
    "/v3/kv/put": "KV.Put",
    "/v3/kv/deleterange": "KV.DeleteRange",
    "/v3/kv/txn": "KV.Txn",
    "/v3/kv/compaction": "KV.Compact",
}
ERROR_CODES: Final = (400, 401, 403, 404, 409, 429, 499, 501, 503, 504)
_WHOLE: Final = {"type": "string", "pattern": "^-?[0-9]+$"}
_TYPES: Final[dict[int, Json]] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "format": "byte"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_INT64: _WHOLE,
    FieldDescriptor.TYPE_UINT64: _WHOLE,
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
}
_ERROR: Final[Json] = {
    "type": "object",
    "required": ["error", "code", "message"],
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "integer"},
        "message": {"type": "string"},
    },
}


@cache
def document() -> Json:
    """OpenAPI 3.0. Methods that stream are described by their first request and answers."""
    schemas: Json = {"Error": _ERROR}
    paths: Json = {
        path: {"post": _operation(path, name, schemas)}
        for path, name in sorted({**KV_PATHS, **PATHS}.items())
    }
    for path in ("/health", "/version"):
        answers = {"200": _answer({"type": "object"})}
        if path == "/health":
            answers["503"] = _answer({"type": "object"})
        paths[path] = {"get": {"operationId": path[1:], "responses": answers}}
    return {
        "openapi": "3.0.3",
        "info": {"title": "etcd's v3 API, as a DWCP gateway serves it", "version": ETCD_VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(path: str, name: str, schemas: Json) -> Json:
    method = METHODS[name]
    answer = _named(method.response.DESCRIPTOR, schemas)
    if name not in UNARY:
        answer = {"type": "object", "properties": {"result": answer}}
    responses = {"200": _answer(answer)}
    responses |= {str(code): _answer(_reference("Error")) for code in ERROR_CODES}
    body = _named(method.request.DESCRIPTOR, schemas)
    return {
        "operationId": path.removeprefix("/v3/").replace("/", "-"),
        "tags": [name.split(".", maxsplit=1)[0]],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": responses,
    }


def _answer(schema: Json) -> Json:
    return {"description": "answer", "content": {"application/json": {"schema": schema}}}


def _named(message: Any, schemas: Json) -> Json:
    """A reference to a message's schema, which is added with all that it names."""
    if message.name not in schemas:
        schemas[message.name] = {}  # a transaction names itself
        properties = {field.name: _field(field, schemas) for field in message.fields}
        schemas[message.name] = {"type": "object", "properties": properties}
    return _reference(message.name)


def _field(field: FieldDescriptor, schemas: Json) -> Json:
    if field.message_type is not None:
        one = _named(field.message_type, schemas)
    elif field.enum_type is not None:
        one = {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    else:
        one = _TYPES[field.type]
    return {"type": "array", "items": one} if field.is_repeated else one


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
