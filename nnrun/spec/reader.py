"""YAML text → a checked Experiment, every fault with its place in the file.

PyYAML composes the nodes, which carry line and column; the values are made here from the core types of YAML 1.2, so that `1e-3` is a
number and `no` is text. Nothing in a config can name code: every tag is refused. Pydantic checks the values; this module finds the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nnrun.errors import Fault, Place, SpecError
from nnrun.registry import KINDS
from nnrun.spec.base import Location
from nnrun.spec.experiment import Experiment, plain

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
    values: dict[str, Any] = field(default_factory=dict)
    keys: dict[Location, Place] = field(default_factory=dict)
    places: dict[Location, Place] = field(default_factory=dict)

    def place(self, at: Location, *, on_key: bool = False) -> Place | None:
        """Return where `at` stands; an argument given in a short form, or not at all, is found at the nearest thing written."""
        path: Location = ()
        for step in at:
            if (*path, step) in self.places:
                path = (*path, step)
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


def read_spec(config: Path | str, overrides: Sequence[str] = ()) -> tuple[Experiment, Source]:
    """Return the experiment in a YAML file, and the source that knows where each of its values stands.

    Args:
        overrides: `path=value` each, such as `optimizer.momentum=0.9` or `layers[0]=32`; the value is YAML.

    Raises:
        SpecError: with every fault of the file, in the order of their places.
    """
    path = Path(config)
    source = read_source(path)
    for override in overrides:
        apply_override(source, override)
    values = {"name": re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "run", **source.values}
    return check(values, folder=path.parent, source=source), source


def check(values: dict[str, Any], *, folder: Path | str = ".", source: Source | None = None) -> Experiment:
    """Return the experiment that plain values describe; relative data paths are looked up beside `folder`.

    Raises:
        SpecError: with every fault.
    """
    try:
        return Experiment.model_validate(values, context={"folder": str(folder)})
    except ValidationError as error:
        faults = []
        for one in error.errors():
            context = one.get("ctx", {})
            place = source.place(one["loc"], on_key=context.get("on_key", False)) if source else None
            faults.append(Fault(context.get("what", one["msg"]), context.get("fix", ""), place))
        by_place = sorted(faults, key=lambda one: (one.place.line, one.place.column) if one.place else (0, 0))
        raise SpecError([_named(one, source) for one in by_place]) from None


def dump_spec(spec: Experiment) -> str:
    """Return the experiment as YAML with every default written out; `read_spec` gives an equal one back."""
    return yaml.dump(plain(spec), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read_source(path: Path) -> Source:
    """Return a config's values and positions, unchecked."""
    text = _text(path)
    source = Source(str(path), text.splitlines())
    try:
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        raise SpecError(f"this is not YAML: {error.problem or error}", fix=_yaml_hint(error), place=_at_mark(source, error)) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError(f"{path}: this is not YAML: {str(error).partition(chr(10))[0]}") from None
    if len(documents) > 1:
        place = source.mark(documents[1])
        raise SpecError("a second document begins here", fix="a config is one document: remove the line `---`", place=place)
    root = documents[0] if documents else None
    if root is None:
        raise SpecError(f"{path} is empty", fix="a config names at least a dataset: `dataset: iris`")
    if not isinstance(root, yaml.MappingNode):
        raise SpecError("a config is a mapping of keys to values", fix="begin with `dataset: …`", place=source.mark(root))
    faults: list[Fault] = []
    budget = iter(range(MAX_NODES))
    source.values = _value(root, (), source, faults, budget)
    if faults:
        raise SpecError(faults)
    return source


def apply_override(source: Source, override: str) -> None:
    """Set one value of a source from `path=value`.

    Raises:
        SpecError: the path is not one, leads through something that has no keys, or the value is not YAML.
    """
    path, equals, text = override.partition("=")
    steps: Location = tuple(int(number) if number else word for word, number in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path))
    here = Place("--set", 1, 1, override, len(override))
    if not equals or not steps:
        raise SpecError(
            f"{override!r} is not an override", fix="write path=value: lr=0.01, optimizer.momentum=0.9, layers[0]=32", place=here
        )
    written = Source("--set", [override])
    padded = " " * (len(path) + 1) + text  # the value stands in its own column, so that its faults are pointed at there
    try:
        node = yaml.compose(padded, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise SpecError(f"{text!r} is not a YAML value", fix="put it in quotes", place=here) from None
    faults: list[Fault] = []
    value = _value(node, steps, written, faults, iter(range(MAX_NODES))) if node is not None else None
    if faults:
        raise SpecError(faults)
    _put(source.values, steps, value, here)
    for known in (source.places, source.keys):
        for at in [at for at in known if at[: len(steps)] == steps]:
            del known[at]
    source.places |= {steps: here, **written.places}
    source.keys |= {steps: here, **written.keys}


def _put(values: Any, steps: Location, value: Any, place: Place) -> None:
    """Set a value deep inside mappings and lists; a part written as a bare name becomes a mapping when an argument of it is set."""
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        if isinstance(step, int) and not (isinstance(values, list) and step < len(values)):
            count = len(values) if isinstance(values, list) else "no"
            raise SpecError(f"there is no [{step}]: the config has {count} items there", fix="count from 0", place=place)
        if isinstance(step, str) and not isinstance(values, dict):
            raise SpecError(f"{step!r} cannot be set inside a value that is not a mapping", fix="check the path", place=place)
        if last:
            values[step] = value
        else:
            if isinstance(step, str) and isinstance(values.get(step), str | None):
                known = Experiment.model_fields.get(step) if number == 0 else None
                name = values.get(step) or (known.default if known else None)  # what is not written has its default's arguments
                values[step] = {"name": name} if isinstance(name, str) else {}
            values = values[step]


def _value(node: yaml.Node, at: Location, source: Source, faults: list[Fault], budget: Iterator[int]) -> Any:
    """Return a node's value, noting where it and everything in it stands."""
    source.places[at] = source.mark(node)
    if next(budget, None) is None or len(at) > MAX_DEPTH:
        what = f"nested deeper than {MAX_DEPTH}" if len(at) > MAX_DEPTH else f"more than {MAX_NODES} values once aliases are expanded"
        raise SpecError(f"the config is {what}" if len(at) > MAX_DEPTH else f"the config has {what}", place=source.mark(node))
    if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
        short = node.tag.replace("tag:yaml.org,2002:", "!!")
        faults.append(Fault(f"the tag {short} is not allowed", "a config holds names and values, never code: remove it", source.mark(node)))
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
        if not isinstance(key, str):
            faults.append(Fault("a key must be a word", "write `key: value`", source.mark(key_node)))
        elif key_node.tag.endswith(":merge"):
            faults.append(Fault("merge keys (<<) are not supported", "write the keys out", source.mark(key_node)))
        elif key in made:
            first = source.keys[(*at, key)].line
            faults.append(Fault(f"the key {key!r} is given twice, first in line {first}", "keep one of them", source.mark(key_node)))
        else:
            source.keys[(*at, key)] = source.mark(key_node)
            made[key] = _value(value_node, (*at, key), source, faults, budget)
    return made


def _scalar(node: yaml.Node) -> Any:
    text = str(node.value)
    if getattr(node, "style", None) is not None:  # quoted or a block: text, whatever it looks like
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) <= 40:
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)
    return float(text) if _FLOAT.fullmatch(text) else text


def _text(path: Path) -> str:
    if not path.exists():
        near = sorted(str(other) for other in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise SpecError(f"{path} does not exist", fix=f"there is {', '.join(near[:5])}" if near else "check the path")
    if not path.is_file():
        raise SpecError(f"{path} is not a file", fix="give the path of a YAML file")
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}", fix="check its permissions") from None
    if data is None:
        raise SpecError(f"{path} is larger than 1 MiB", fix="a config is a page of text; is this the data?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = (
            "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp932 (Shift-JIS)" if _decodes(data, "cp932") else "another encoding"
        )
        line = data[: error.start].count(b"\n") + 1
        raise SpecError(f"{path}:{line}: this is not UTF-8; it looks like {kind}", fix="save the file as UTF-8") from None


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


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


def _named(one: Fault, source: Source | None) -> Fault:
    """A fault of something that is not written has no place; it still names the file."""
    return one if one.place or not source else Fault(f"{source.file}: {one.what}", one.fix)


class _Dumper(yaml.SafeDumper):
    """Writes text that this reader would take for a number or a word in quotes, and short lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    bare = not (text in _WORDS or _INT.fullmatch(text) or _FLOAT.fullmatch(text))
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if bare else "'")


def _list_node(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    flat = all(not isinstance(item, list | dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(list, _list_node)
