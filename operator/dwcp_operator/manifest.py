"""Reads a manifest: YAML text in, a DWCPCluster out, or sentences that say what to write.

YAML is composed into nodes first, so that every problem knows its line and a key that is
given twice is refused instead of silently taken from the last place.
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dwcp_operator.resources import API_VERSION, KIND, DWCPCluster

MANIFEST_BYTES_MAX: Final = 1_000_000

_PLAIN: Final = re.compile(r"[A-Za-z_][\w.:/-]{0,79}|[0-9]+[A-Za-z]{1,2}")
"""Text that is shown without quotes; digits alone are not, since quotes are then the mistake."""

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where it stands, and what to write instead."""

    sentence: str
    line: int | None = None


class ManifestError(Exception):
    """A manifest that does not do; `problems` holds a sentence for each thing that is wrong."""

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        super().__init__("\n".join(self._line(p) for p in problems))

    def _line(self, problem: Problem) -> str:
        where = self.source if problem.line is None else f"{self.source}:{problem.line}"
        return f"{where}: {problem.sentence}"


def load_manifest(source: Path | str) -> DWCPCluster:
    """Read a manifest from a file (Path) or from text (str).

    Raises ManifestError with every problem found, each with its line.
    """
    name, text = _read(source) if isinstance(source, Path) else ("manifest", source)
    root = _compose(name, text)
    tree = _construct(name, root)
    _check_kind(name, tree, root)
    try:
        return DWCPCluster.model_validate(tree)
    except ValidationError as error:
        raise ManifestError(name, _problems(error, root)) from None


def _read(path: Path) -> tuple[str, str]:
    name = str(path)
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise ManifestError(name, (Problem("is a directory: name a manifest file"),))
        if size > MANIFEST_BYTES_MAX:
            raise ManifestError(name, (Problem(f"has {size} bytes, too many for a manifest"),))
        return name, path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(name, (Problem("no such file: name a manifest with -f"),)) from None
    except UnicodeDecodeError:
        raise ManifestError(name, (Problem("is not UTF-8 text: name a YAML manifest"),)) from None
    except OSError as error:
        raise ManifestError(name, (Problem(f"can not be read: {error.strerror}"),)) from None


# --- YAML ------------------------------------------------------------------------------------


def _compose(name: str, text: str) -> yaml.MappingNode:
    try:
        documents = [
            node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if not _is_empty(node)
        ]
    except yaml.YAMLError as error:
        raise ManifestError(name, (_yaml_problem(error),)) from None
    except RecursionError:
        raise ManifestError(name, (Problem("is nested too deeply for a manifest"),)) from None
    if not documents:
        raise ManifestError(name, (Problem(f"is empty: write a {KIND}"),))
    if len(documents) > 1:
        line = documents[1].start_mark.line + 1
        sentence = f"holds {len(documents)} documents: keep one {KIND} in a file"
        raise ManifestError(name, (Problem(sentence, line),))
    root = documents[0]
    if not isinstance(root, yaml.MappingNode):
        line = root.start_mark.line + 1
        sentence = f"is not a mapping: begin with apiVersion: {API_VERSION}"
        raise ManifestError(name, (Problem(sentence, line),))
    ambiguous = tuple(_ambiguities(root, (), set()))
    if ambiguous:
        raise ManifestError(name, ambiguous)
    return root


def _is_empty(node: yaml.Node | None) -> bool:
    return node is None or (isinstance(node, yaml.ScalarNode) and node.value == "")


def _yaml_problem(error: yaml.YAMLError) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = error.problem or "it can not be parsed"
        return Problem(f"is not YAML: {what}", error.problem_mark.line + 1)
    return Problem(f"is not YAML: {error}".splitlines()[0])


def _ambiguities(node: yaml.Node, path: Location, visited: set[int]) -> Iterator[Problem]:
    """Aliases, keys given twice and keys that are not text: what readers see differently."""
    line = node.start_mark.line + 1
    if id(node) in visited:
        yield Problem(f"{_dotted(path)} is a YAML alias: write the value out", line)
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _ambiguities(item, (*path, index), visited)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        here = (*path, str(key.value))
        if key.tag != "tag:yaml.org,2002:str":
            yield Problem("has a key that is not text: write a field's name", line)
        elif key.value in seen:
            yield Problem(f"{_dotted(here)} is given twice: keep one", key.start_mark.line + 1)
        else:
            seen.add(key.value)
        yield from _ambiguities(value, here, visited)


def _construct(name: str, root: yaml.MappingNode) -> object:
    loader = yaml.SafeLoader("")
    try:
        tree: object = loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ManifestError(name, (_yaml_problem(error),)) from None
    finally:
        loader.dispose()
    return tree


def _line_of(root: yaml.Node, location: Location) -> int:
    """The line of the deepest part of `location` that is written in the document."""
    node, line = root, root.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


# --- kinds -----------------------------------------------------------------------------------


def _check_kind(name: str, tree: object, root: yaml.Node) -> None:
    assert isinstance(tree, dict), "a mapping node constructs a dict"
    problems = []
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if key not in tree:
            problems.append(Problem(f"{key} is missing: write {key}: {wanted}", 1))
        elif tree[key] != wanted:
            sentence = f"{key}={_value(tree[key])} is not known here: write {key}: {wanted}"
            problems.append(Problem(sentence, _line_of(root, (key,))))
    if problems:
        raise ManifestError(name, tuple(problems))


# --- sentences -------------------------------------------------------------------------------


def _problems(error: ValidationError, root: yaml.Node) -> tuple[Problem, ...]:
    found: dict[str, Problem] = {}
    for details in error.errors(include_url=False):
        # A union's branches each report the same place: the place is named once.
        location = tuple(p for p in details["loc"] if not _is_branch(p))
        sentence = _sentence(details, location)
        found.setdefault(_dotted(location), Problem(sentence, _line_of(root, location)))
    return tuple(found.values())


def _is_branch(part: str | int) -> bool:
    return part in ("str", "int")


_SENTENCES: Final = {
    "dwcp": "{problem}",
    "int_type": "is not a whole number: write digits without quotes, such as 4",
    "bool_type": "is not true or false: write one of them without quotes",
    "string_type": "is not text: write it in quotes",
    "model_type": "is not a mapping: write its fields below it, indented",
    "dict_type": "is not a mapping: write its fields below it, indented",
    "tuple_type": "is not a list: write one item per line, each with a hyphen",
    "greater_than_equal": "is too small: use {ge} or more",
    "less_than_equal": "is too large: use {le} or less",
    "too_short": "is too short: give at least {min_length}",
    "string_too_short": "is too short: give at least {min_length} characters",
    "too_long": "is too long: give at most {max_length}",
    "string_too_long": "is too long: give at most {max_length} characters",
    "string_pattern_mismatch": "does not match {pattern}: copy it from the old cluster's status",
}
"""By pydantic's type of error; the fields are its context."""


def _sentence(details: ErrorDetails, location: Location) -> str:
    where, value, kind = _dotted(location), details["input"], details["type"]
    given = where if isinstance(value, Mapping | list) else f"{where}={_value(value)}"
    if kind == "extra_forbidden":
        return _unknown_field(location)
    if kind == "missing":
        return f"{where} is missing: write it"
    if kind == "literal_error":
        return f"{given} is not known: use {_choices(location)}"
    if kind in _SENTENCES:
        # What is wrong with the whole says itself where, or names a field below with a dot.
        said = _SENTENCES[kind].format(**details.get("ctx", {}))
        return f"{given}{said}" if said.startswith(".") else f"{given} {said}".lstrip()
    return f"{given} does not do: {details['msg']}"


def _dotted(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _value(value: object) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _unknown_field(location: Location) -> str:
    parent = _model_at(location[:-1])
    known = [field.alias or name for name, field in parent.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    if near:
        return f"{_dotted(location)} is not a field: did you mean {near[0]}?"
    return f"{_dotted(location)} is not a field: the fields here are {', '.join(known)}"


def _choices(location: Location) -> str:
    fields = tuple(part for part in location if isinstance(part, str))
    parent = _model_at(fields[:-1])
    annotation = next(
        field.annotation
        for name, field in parent.model_fields.items()
        if (field.alias or name) == fields[-1]
    )
    choices = [str(choice) for choice in _literal_values(annotation)]
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else choices[0]


def _literal_values(annotation: Any) -> list[object]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [value for part in get_args(annotation) for value in _literal_values(part)]


def _model_at(location: Location) -> type[BaseModel]:
    """The model that the fields at `location` belong to."""
    model: type[BaseModel] = DWCPCluster
    for part in location:
        if isinstance(part, int):
            continue
        field = next(
            (f for name, f in model.model_fields.items() if (f.alias or name) == part), None
        )
        if field is None:
            break
        model = next(_models_in(field.annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, tuple, list):
        for part in get_args(annotation):
            yield from _models_in(part)
