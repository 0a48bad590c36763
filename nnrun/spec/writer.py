"""A checked Experiment → YAML with every default written out, which the reader turns back into an equal one."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import yaml

from nnrun import __version__
from nnrun.spec.experiment import Experiment, plain
from nnrun.spec.source import is_plain_text


def dump_spec(spec: Experiment) -> str:
    """Return the experiment as YAML with every default written out; `read_spec` gives an equal one back."""
    return f"# nnrun {__version__}\n" + "".join(_dumped(key, json.dumps(value)) for key, value in plain(spec).items())


@lru_cache(maxsize=512)
def _dumped(key: str, value: str) -> str:
    """Return the lines of one key and its value, given as JSON; those of many configs that differ in a few numbers are mostly the same."""
    written: str = yaml.dump({key: json.loads(value)}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return written


class _Dumper(yaml.SafeDumper):
    """Writes text that this reader would take for a number or a word in quotes, and short lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if not text.isprintable() else None if is_plain_text(text) else "'"  # only in double quotes U+0085 comes back as it is
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _list_node(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    flat = all(not isinstance(item, list | dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_Dumper.add_representer(str, _text_node)
_Dumper.add_representer(list, _list_node)
