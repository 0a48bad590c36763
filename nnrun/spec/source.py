"""YAML text → plain values, and where each of them stands. Nothing is checked here but that it is one plain document.

PyYAML composes the nodes, which carry line and column; the values are made here from the core types of YAML 1.2, so that `1e-3` is a
number and `no` is text. Nothing in a config can name code: every tag is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from nnrun.errors import Fault, Place, SpecError, closest
from nnrun.registry import KINDS
from nnrun.spec.base import Location, shown
from nnrun.spec.encoding import not_utf8

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000  # after aliases are expanded: a small file of aliases to aliases can unfold to billions

_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS |= {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}


@dataclass
class Source:
    """A config as read: its values, and where each key and value stands."""

    file: str
    lines: list[str]
    folders: list[str] = field(default_factory=list)  # of this file and of those it extends: data may stand beside any of them
    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[Location, Place] = field(default_factory=dict)
    places: dict[Location, Place] = field(default_factory=dict)

    def place(self, at: Location, *, on_key: bool = False) -> Place | None:
        """Return where `at` stands; an argument given in a short form, or not at all, is found at the nearest thing written."""
        path: Location = ()
        for step in at:
            if (*path, step) in self.places:
                path = (*path, step)
            elif not path:  # a section that is not written
                break
            else:  # `{conv2d: {kernel_size: 0}}` is one step deeper in the file than in the spec, and `{csv: mine.csv}` one less
                inner = [other for other in self.places if len(other) == len(path) + 1 and other[:-1] == path]
                deeper = next((other for other in inner if (*other, step) in self.places), None)
                named = next((other for other in inner if any(other[-1] in registry for registry in KINDS.values())), None)
                path = (*deeper, step) if deeper else named or (inner[0] if len(inner) == 1 else path)
        return (self.keys if on_key and path in self.keys else self.places)[path] if path else None

    def mark(self, node: yaml.Node) -> Place:
        """Return where a node stands; of a node of several lines, its first."""
        start, end = node.start_mark, node.end_mark
        source = self.lines[start.line] if start.line < len(self.lines) else ""
        width = end.column - start.column if end.line == start.line else len(source) - start.column
        return Place(self.file, start.line + 1, start.column + 1, source, max(1, width))

    def move(self, old: Location, new: Location, source: Source | None = None) -> None:
        """Let `new` and all inside it stand where `old` stands in a source; nothing else stands there any more."""
        for mine, theirs in ((self.places, (source or self).places), (self.keys, (source or self).keys)):
            found = {(*new, *at[len(old) :]): place for at, place in theirs.items() if at[: len(old)] == old}
            for at in [at for at in mine if at[: len(new)] == new]:
                del mine[at]
            mine |= found


class _Loader(yaml.SafeLoader):
    """Composes nodes only, and remembers a tag that is written out: of the node alone it cannot be told from the one that YAML infers."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        written = getattr(self.peek_event(), "tag", None)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        if node is not None and written is not None:
            node.written_tag = written  # type: ignore[attr-defined]
        return node


def read_source(path: Path) -> Source:
    """Return a config's values and positions.

    Raises:
        SpecError: the file cannot be read, or is not one plain YAML mapping; with every tag and every duplicate key.
    """
    text = _text(path)
    source = Source(str(path), text.splitlines(), [str(path.parent)])
    try:
        documents = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        raise SpecError(f"this is not YAML: {error.problem or error}", fix=_yaml_hint(error), place=_at_mark(source, error)) from None
    except yaml.reader.ReaderError as error:
        start = text.rfind("\n", 0, error.position) + 1
        line = text[start:].partition("\n")[0].translate({code: "�" for code in range(32) if code != 9})
        place = Place(str(path), text.count("\n", 0, start) + 1, error.position - start + 1, line)
        raise SpecError(f"this is not YAML: the character U+{ord(text[error.position]):04X}", fix="remove it", place=place) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError(f"{path}: this is not YAML: {str(error).partition(chr(10))[0]}", fix="nest it less deeply") from None
    if len(documents) > 1:
        place = source.mark(documents[1])
        raise SpecError("a second document begins here", fix="a config is one document: remove the line `---`", place=place)
    root = documents[0] if documents else None
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        raise SpecError(f"{path} is empty", fix="a config names at least a dataset: `dataset: iris`")
    if not isinstance(root, yaml.MappingNode):
        raise SpecError("a config is a mapping of keys to values", fix="begin with `dataset: …`", place=source.mark(root))
    faults: list[Fault] = []
    source.values = _value(root, (), source, faults, iter(range(MAX_NODES)))
    if faults:
        raise SpecError(faults)
    return source


def read_value(text: str, at: Location, source: Source) -> Any:
    """Return the value of a piece of YAML, and let `source` know where everything in it stands: at `at` and below.

    Raises:
        SpecError: the text holds tags or duplicate keys.
        yaml.YAMLError: it is not YAML.
    """
    node, faults = yaml.compose(text, Loader=_Loader), list[Fault]()
    value = _value(node, at, source, faults, iter(range(MAX_NODES))) if node is not None else None
    if faults:
        raise SpecError(faults)
    return value


def as_number(text: str) -> int | float | None:
    """Return the number that a plain scalar is, in the notation of YAML 1.2 and `1e-3` besides; None when it is none."""
    if _INT.fullmatch(text) and len(text) <= 40:
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)
    return float(text) if _FLOAT.fullmatch(text) else None


def is_plain_text(text: str) -> bool:
    """Return whether a plain scalar is text, not a number, a boolean or null."""
    return text not in _WORDS and as_number(text) is None


def _value(node: yaml.Node, at: Location, source: Source, faults: list[Fault], budget: Iterator[int]) -> Any:
    """Return a node's value, noting where it and everything in it stands."""
    source.places[at] = source.mark(node)
    if next(budget, None) is None or len(at) > MAX_DEPTH:
        deep = len(at) > MAX_DEPTH
        what = f"is nested deeper than {MAX_DEPTH}" if deep else f"has more than {MAX_NODES} values once aliases are expanded"
        fix = "nest it less deeply" if deep else "leave the aliases out"
        raise SpecError(f"the config {what}", fix=fix, place=source.mark(node))
    tag = getattr(node, "written_tag", None)
    if tag is not None:
        short = tag.replace("tag:yaml.org,2002:", "!!")
        place = replace(source.mark(node), width=len(short))
        faults.append(
            Fault(f"the tag {shown(short)[1:-1]} is not allowed", "a config holds names and values, never code: remove it", place)
        )
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*at, number), source, faults, budget) for number, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, at, source, faults, budget)
    return _scalar(node)


def _mapping(node: yaml.MappingNode, at: Location, source: Source, faults: list[Fault], budget: Iterator[int]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key, str) or getattr(key_node, "written_tag", None) is not None:
            faults.append(Fault("a key must be a word", "write `key: value`", source.mark(key_node)))
        elif key_node.tag.endswith(":merge"):
            faults.append(Fault("merge keys (<<) are not supported", "write the keys out", source.mark(key_node)))
        elif key in made:
            first = source.keys[(*at, key)].line
            faults.append(Fault(f"the key {shown(key)} is given twice, first in line {first}", "keep one of them", source.mark(key_node)))
        else:
            source.keys[(*at, key)] = source.mark(key_node)
            made[key] = _value(value_node, (*at, key), source, faults, budget)
    return made


def _scalar(node: yaml.Node) -> Any:
    text = str(node.value)
    if getattr(node, "style", None) is not None:  # quoted or a block: text, whatever it looks like
        return text
    number = as_number(text)
    return _WORDS.get(text, text if number is None else number)


def _text(path: Path) -> str:
    try:
        there = path.exists()
    except OSError as error:  # a name that is too long
        raise SpecError(f"{shown(str(path))} cannot be read: {error.strerror}", fix="check the path") from None
    if not there:
        others = sorted(other.name for other in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        near = closest(path.name, others)
        told = [str(path.parent / other) for other in others[:5]]
        fix = f"there {'is' if len(told) == 1 else 'are'} {', '.join(told)}{', …' * (len(others) > 5)}" if told else "check the path"
        raise SpecError(f"{path} does not exist", fix=f"did you mean {str(path.parent / near)!r}?" if near else fix)
    if not path.is_file():
        raise SpecError(f"{path} is not a file", fix="give the path of a YAML file")
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", fix="check its permissions") from None
    if data is None:
        raise SpecError(f"{path} is larger than 1 MiB", fix="a config is a page of text; is this the data?")
    wrong = not_utf8(data, path, "is this a config? it is a page of YAML")
    if wrong:
        raise SpecError([wrong])
    return data.decode("utf-8-sig")


def _at_mark(source: Source, error: yaml.MarkedYAMLError) -> Place | None:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return None
    return Place(source.file, mark.line + 1, mark.column + 1, source.lines[mark.line] if mark.line < len(source.lines) else "")


def _yaml_hint(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem)
    if r"'\t'" in problem:
        return "YAML is indented by spaces: replace the tab"
    if "mapping values are not allowed" in problem:
        return "a colon with a space begins a value: put the text in quotes, or check the indentation"
    return "check the indentation, the brackets and the quotes up to this place"
