"""Safe parsing of YAML and JSON: what a document may hold is bounded and checked here, wherever it comes from.

A document consists of texts, finite numbers, truth values, null, lists, and mappings with different texts as keys. Its
nesting, what YAML's aliases repeat, and the size of its whole numbers are bounded. Characters NUL, byte order marks and
halves of surrogate pairs are refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.composer import Composer, ComposerError
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode

from ..errors import InputError, clipped, shown

MOST_DEPTH = 50  # levels of nesting
MOST_REPEATED = 100_000  # characters and values that the aliases of a YAML document may add to it
_BITS = 63  # of a whole number
_MARK = "\ufeff"


class Refused(ValueError):
    """Content that is not allowed."""


def parse_yaml(text: str, named: str, error: type[InputError]) -> Any:
    """Parse one YAML document that consists of texts, numbers, truth values, null, lists and mappings.

    Args:
        text: Document.
        named: Name of the document in error messages, such as that of its file.
        error: Class of the error to raise.

    Raises:
        InputError: The document cannot be parsed, is nested too deeply, has an alias within what it names, repeats too
            much by aliases, has a key twice or one that is not a text, or a value of another kind, such as a timestamp.
            The error is of class `error`.
    """
    return _parsed(lambda: _load(text), text, named, error)


def parse_json(text: str, named: str, error: type[InputError]) -> Any:
    """Parse a JSON document; see `parse_yaml`. NaN and Infinity are not JSON.

    Raises:
        InputError: The document cannot be parsed, is nested too deeply, or has a key twice. The error is of class
            `error`.
    """
    return _parsed(lambda: json.loads(text, object_pairs_hook=_unique), text, named, error)


def checked_text(text: str) -> str:
    """Return the text of a file, which may have neither NUL nor byte order marks nor halves of surrogate pairs.

    Raises:
        ValueError: The text has such a character. The message names the character and its place.
    """
    if _MARK in text:
        raise Refused(f"a byte order mark at character {text.index(_MARK) + 1}")
    if (fault := _fault(text)) is not None:
        raise Refused(fault)
    return text


def _fault(text: str) -> str | None:
    if "\0" in text:
        return f"a character NUL at character {text.index(chr(0)) + 1}"
    try:
        text.encode()
    except UnicodeEncodeError as reason:
        return f"half of a surrogate pair at character {reason.start + 1}"
    return None


def _parsed(parse: Callable[[], Any], text: str, named: str, error: type[InputError]) -> Any:
    # Besides errors of its own, PyYAML raises those of Python for some malformed documents.
    expected = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
    try:
        checked_text(text)
        content = parse()
        _check(content)
    except expected as reason:
        deep = isinstance(reason, RecursionError) or (isinstance(reason, json.JSONDecodeError) and _is_deep(text))
        detail = "it is nested too deeply" if deep else " ".join(str(reason).split())
        if "set_int_max_str_digits" in detail:
            detail = "it has a number of too many digits"
        detail = detail.replace('in "<unicode string>", line', "in line")
        raise error(f"{named} cannot be parsed: {clipped(detail, 300)}") from reason
    return content


def _is_deep(text: str) -> bool:
    """Whether a JSON text that cannot be parsed is nested too deeply. Older Pythons raise RecursionError for it."""
    levels = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
        levels += 1 if bracket in "[{" else -1
        deepest = max(deepest, levels)
    return deepest > MOST_DEPTH


def _check(content: Any) -> None:
    """Check all values of a document, each container once however often aliases repeat it."""
    seen: set[int] = set()
    waiting: list[tuple[Any, str, int]] = [(content, "", 1)]
    while waiting:
        value, where, depth = waiting.pop()
        named = clipped(where) or "it"
        if isinstance(value, str):
            if (fault := _fault(value)) is not None:
                raise Refused(f"{named} has {fault}")
        elif isinstance(value, int) and value.bit_length() > _BITS:
            raise Refused(f"{named} must be a number of at most {_BITS} bits, got {shown(value)}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise Refused(f"{named} must be a finite number, got {value}")
        elif isinstance(value, (dict, list)) and id(value) not in seen:
            seen.add(id(value))
            if depth > MOST_DEPTH:
                raise Refused(f"it is nested more than {MOST_DEPTH} levels deep")
            if isinstance(value, dict):
                waiting += [(key, "a key", depth) for key in value]
                waiting += [(part, f"{named}.{key}" if where else key, depth + 1) for key, part in value.items()]
            else:
                waiting += [(part, f"{named}[{number}]", depth + 1) for number, part in enumerate(value)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise Refused(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} is there twice")
    return found


def _load(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _BoundedComposer(Composer):
    """Composes the nodes of a document within the bounds of this module.

    The size of a node, in characters and values, and its height include everything that its aliases stand for.
    """

    def __init__(self) -> None:
        Composer.__init__(self)  # of the bases of a loader, only this one
        self._depth = self._repeated = 0
        self._extents: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.check_event(AliasEvent):  # type: ignore[attr-defined]
            node = super().compose_node(parent, index)
            if id(node) not in self._extents:
                raise ComposerError(None, None, "an alias stands within what it names")
            self._repeated += self._extents[id(node)][0]
            if self._repeated > MOST_REPEATED:
                raise ComposerError(None, None, f"its aliases repeat more than {MOST_REPEATED} values")
            return node
        self._depth += 1
        self._limit(self._depth)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None:
            self._measure(node)
        return node

    def _measure(self, node: Node) -> None:
        if isinstance(node, ScalarNode):
            self._extents[id(node)] = (1 + len(node.value), 0)
            return
        keyed = isinstance(node, MappingNode)
        inside = [part for pair in node.value for part in pair] if keyed else node.value
        extents = [self._extents[id(part)] for part in inside]
        height = 1 + max((height for _, height in extents), default=0)
        self._limit(height)
        self._extents[id(node)] = (1 + sum(size for size, _ in extents), height)

    def _limit(self, levels: int) -> None:
        if levels > MOST_DEPTH:
            raise ComposerError(None, None, f"it is nested more than {MOST_DEPTH} levels deep")

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        keys: set[str] = set()
        for key, _ in node.value:
            if key.tag.rpartition(":")[2] not in ("str", "merge") or not isinstance(key, ScalarNode):
                got = shown(key.value) if isinstance(key, ScalarNode) else f"a {key.id}"
                fault = f"a key must be a string, so put it in quotes, got {got}"
                raise ComposerError(None, None, fault, key.start_mark)
            if key.value in keys:
                raise ComposerError(None, None, f"the key {shown(key.value)} is there twice", key.start_mark)
            keys.add(key.value)
        return node


class _PlainConstructor(SafeConstructor):
    """Constructs texts, numbers, truth values, null, lists and mappings, and nothing else."""

    def refuse(self, node: Node) -> None:
        kind = node.tag.rpartition(":")[2]
        got = f"the {kind} {shown(node.value)}" if isinstance(node, ScalarNode) else f"a value of type {kind}"
        fault = f"{got} is not allowed; if it is a string, put it in quotes"
        raise ConstructorError(None, None, fault, node.start_mark)


def _constructor(tag: str) -> Callable[[Any, Node], Any]:
    construct: Callable[[Any, Node], Any] = SafeConstructor.yaml_constructors[tag]

    def build(loader: Any, node: Node) -> Any:
        try:
            return construct(loader, node)
        except (ValueError, LookupError) as reason:  # of `!!int abc`, `!!bool 7` and the like
            kind = tag.rpartition(":")[2]
            raise ConstructorError(
                None, None, f"{shown(node.value)} cannot be read as {kind}", node.start_mark
            ) from reason

    return build


_ALLOWED = [f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")]
_PlainConstructor.yaml_constructors = {
    **{tag: _constructor(tag) for tag in _ALLOWED},
    None: _PlainConstructor.refuse,
}


def _loader(base: Any) -> Any:
    """Derive the loader from one of PyYAML's: from the one of libyaml, where that is installed, since it is faster."""

    class Loader(_BoundedComposer, _PlainConstructor, base):
        def __init__(self, text: str) -> None:
            base.__init__(self, text)
            _BoundedComposer.__init__(self)

    return Loader


_Loader = _loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader))
