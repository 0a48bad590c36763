"""Pydantic's errors in the words of a person: what came, what is allowed, what to write instead."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from nnrun.errors import closest

if TYPE_CHECKING:
    from nnrun.spec.base import Spec

OURS = "nnrun"  # the type of an error that is worded already
Location = tuple[int | str, ...]

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "none_required": "null",
    "finite_number": "a finite number",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {"greater_than": ("gt", "greater than"), "greater_than_equal": ("ge", "at least"), "less_than": ("lt", "less than")}
_BOUNDS |= {"less_than_equal": ("le", "at most")}
_PRECISE = {*_BOUNDS, "string_pattern_mismatch", "too_short", "too_long", "finite_number"}  # the kind of value was right
_BOOLEANS = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "true": "true",
    "1": "true",
    "no": "false",
    "off": "false",
    "n": "false",
    "false": "false",
    "0": "false",
}
_FORMS: dict[str, tuple[tuple[str, ...], str]] = {}


def form(pattern: str, *examples: str, fix: str = "", **more: Any) -> Any:
    """Return a field of text that matches `pattern`; a person is shown the examples, and told `fix`."""
    _FORMS[pattern] = (examples, fix)
    return Field(pattern=pattern, examples=list(examples), **more)


def fault(what: str, fix: str = "", *, at: Location = (), on_key: bool = False, given: Any = None) -> ValidationError:
    """Return the error for one rule broken at `at`, a path below the value being checked; `on_key` points at the key itself."""
    return ValidationError.from_exception_data("config", [_ours(at, what, fix, on_key, given)])


def no_such_name(kind: str, wrong: str, allowed: Iterable[str], *, see: str = "") -> tuple[str, str]:
    """Return the two sentences for a name outside a closed list: what is wrong, and the nearest right one."""
    names = list(allowed)
    near = closest(wrong, names)
    listed = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    hint = see or f"allowed: {listed}"
    return f"{kind} {shown(wrong)} does not exist", f"did you mean {near!r}? ({hint})" if near else hint


def shown(value: Any) -> str:
    """Return a value as a config writes it, short enough for one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value)}"
    text = f".{value}".replace(".-", "-.") if value in (math.inf, -math.inf) or value != value else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def reworded(cls: type[Spec], errors: list[ErrorDetails]) -> list[InitErrorDetails]:
    """Return pydantic's errors with sentences of ours; the branches of one union become one error."""
    misspelt = {closest(str(error["loc"][-1]), cls.keys()) for error in errors if error["type"] == "extra_forbidden"}
    unions: dict[Location, list[ErrorDetails]] = {}
    done: list[InitErrorDetails] = []
    for error in errors:
        loc, context = error["loc"], error.get("ctx", {})
        if error["type"] == OURS:
            done.append(_ours(loc, context["what"], context["fix"], context["on_key"], error["input"]))
        elif error["type"] == "extra_forbidden":
            what, fix = no_such_name("key", str(loc[-1]), cls.keys())
            done.append(_ours(loc, what, fix, True, error["input"]))
        elif error["type"] != "missing":
            inside = (step for step in loc[1:] if isinstance(step, int))  # the words there are pydantic's names of the branches
            unions.setdefault((*loc[:1], *inside), []).append(error)
        elif loc[-1] not in misspelt:  # else it is there, with a letter wrong, and that is told
            done.append(_missing(cls, str(loc[-1])))
    for place, group in unions.items():
        if not any(other[: len(place)] == place for other in unions if other != place):  # else what is wrong is inside a list
            done.append(_not_allowed(place, group, _named_as(cls)))
    return done


def _named_as(cls: type[Spec]) -> str:
    """Return the key of a section: `early_stopping` for `EarlyStopping`, `sweep` for `SweepSpec`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__.removesuffix("Spec")).lower()


def _ours(loc: Location, what: str, fix: str, on_key: bool, given: Any) -> InitErrorDetails:
    context = {"what": what, "fix": fix, "on_key": on_key}
    return InitErrorDetails(type=PydanticCustomError(OURS, "{what}", context), loc=loc, input=given)


def _missing(cls: type[Spec], key: str) -> InitErrorDetails:
    field = cls.model_fields.get(key)
    about = (field.description or "").strip().rstrip(".") if field else ""
    return _ours((), f"{key!r} is missing", f"add `{key}: …`" + (f" ({about})" if about else ""), False, None)


def _not_allowed(place: Location, group: list[ErrorDetails], whole: str) -> InitErrorDetails:
    """Return the one error for a value that fits none of the branches of its type."""
    given = min(group, key=lambda error: len(error["loc"]))["input"]
    told = group
    if any(error["type"] in _PRECISE for error in group):  # of the right kind for one branch: those of another kind do not matter
        told = [error for error in group if error["type"] in (*_PRECISE, "literal_error")]
    wants = list(dict.fromkeys(_wanted(error) for error in told))
    label = ".".join(str(step) for step in place) or whole
    return _ours(place, f"{label}: {shown(given)} is not {' or '.join(wants)}", _mend(group, given), False, given)


def _wanted(error: ErrorDetails) -> str:
    """Return what would have been right, as a noun phrase."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _WANTED:
        return _WANTED[kind]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {_number(context[key])}"
    if kind == "literal_error":
        allowed = _words(context["expected"])
        return "one of " + ", ".join(allowed) if len(allowed) > 1 else allowed[0]
    if kind == "string_pattern_mismatch":
        examples, _ = _FORMS.get(context["pattern"], ((), ""))
        return "text such as " + ", ".join(map(repr, examples)) if examples else f"text that matches {context['pattern']}"
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        return f"a list of {'at least' if kind == 'too_short' else 'at most'} {bound}"
    return error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def _mend(group: list[ErrorDetails], given: Any) -> str:
    """Return what to write instead, when it can be known."""
    kinds = {error["type"] for error in group}
    contexts = {error["type"]: error.get("ctx", {}) for error in group}
    number = _as_number(given) if kinds & {"int_type", "int_from_float", "float_type"} else None
    if number is not None and (number.is_integer() or "float_type" in kinds):
        return f"write `{_number(number)}`" + (", without quotes" if given == _number(number) else "")
    if "bool_type" in kinds and str(given).lower() in _BOOLEANS:
        return f"write `{_BOOLEANS[str(given).lower()]}`"
    if kinds <= {"list_type", "none_required"} and isinstance(given, str | int | float):
        return f"write `[{given}]`"
    if kinds <= {"string_type", "none_required"} and isinstance(given, str | int | float):
        return f"write `'{shown(given)}'`, in quotes"
    if isinstance(given, str):
        examples, fix = _FORMS.get(contexts.get("string_pattern_mismatch", {}).get("pattern", ""), ((), ""))
        literals = [word.strip("'") for error in group if error["type"] == "literal_error" for word in _words(error["ctx"]["expected"])]
        near = closest(given, [*literals, *examples])
        return f"did you mean {near!r}?" if near else fix
    bound = contexts.get("greater_than_equal", {}).get("ge", contexts.get("less_than_equal", {}).get("le"))
    if bound is not None:
        return f"write `{_number(bound)}` or {'more' if 'greater_than_equal' in kinds else 'less'}"
    for kind, words in (("greater_than", "above"), ("less_than", "below")):
        if kind in kinds:
            return f"write a number {words} {_number(contexts[kind][_BOUNDS[kind][0]])}"
    return ""


def _as_number(given: Any) -> float | None:
    """Return the number that was meant by `10.0`, '10', '1_000', '0,5' or '50%'."""
    if isinstance(given, float):
        return given
    text = given.strip().replace("_", "") if isinstance(given, str) else ""
    share = text.endswith("%")
    text = text.removesuffix("%").strip().replace(",", ".", 1)
    if not re.fullmatch(r"[-+]?[0-9]{1,15}(\.[0-9]{0,15})?([eE][-+]?[0-9]{1,2})?", text):
        return None
    return float(text) / (100 if share else 1)


def _number(value: float) -> str:
    """Return a number as a person writes it: 1000000000, not 1e+09."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e16 else str(value)


def _words(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")
