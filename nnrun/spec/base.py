"""What every class of the config shares: frozen, strict, closed, and faults in the words of a person.

Pydantic does the checking. Its messages are reworded where they arise, because only there the class, and so the allowed names, are known;
`fault()` is how a rule of ours reports, in the same form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from nnrun.errors import closest

OURS = "nnrun"  # the type of an error that is worded already
Location = tuple[int | str, ...]


def fault(what: str, fix: str = "", *, at: Location = (), on_key: bool = False, given: Any = None) -> ValidationError:
    """Return the error for one rule broken at `at`, a path below the value being checked; `on_key` points at the key itself."""
    context = {"what": what.replace("{", "{{").replace("}", "}}"), "fix": fix, "on_key": on_key}
    error = PydanticCustomError(OURS, "{what}", context)
    return ValidationError.from_exception_data("config", [InitErrorDetails(type=error, loc=at, input=given)])


def no_such_name(kind: str, wrong: str, allowed: Iterable[str], *, see: str = "") -> tuple[str, str]:
    """Return the two sentences for a name outside a closed list: what is wrong, and the nearest right one."""
    names = list(allowed)
    near = closest(wrong, names)
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    hint = see or f"allowed: {shown}"
    return f"{kind} {wrong!r} does not exist", f"did you mean {near!r}? ({hint})" if near else hint


class Spec(BaseModel):
    """A frozen piece of a config; a docstring under each field is its description."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys that a config may write here."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @model_validator(mode="wrap")
    @classmethod
    def _in_our_words(cls, value: Any, handler: ModelWrapValidatorHandler[Spec]) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValidationError.from_exception_data(cls.__name__, _reworded(cls, error.errors())) from None


def _reworded(cls: type[Spec], errors: list[ErrorDetails]) -> list[InitErrorDetails]:
    """Return pydantic's errors with sentences of ours; the branches of one union become one error."""
    unions: dict[Location, list[ErrorDetails]] = {}
    done: list[InitErrorDetails] = []
    for error in errors:
        field = cls.model_fields.get(str(error["loc"][0])) if error["loc"] else None
        if error["type"] == OURS:
            done.append(_ours(error["loc"], error["ctx"]["what"], error["ctx"]["fix"], error["ctx"]["on_key"], error["input"]))
        elif error["type"] == "extra_forbidden":
            what, fix = no_such_name("key", str(error["loc"][-1]), cls.keys())
            done.append(_ours(error["loc"], what, fix, True, error["input"]))
        elif error["type"] == "missing":
            what = f"{error['loc'][-1]!r} is missing"
            about = (field.description or "").strip().rstrip(".") if field else ""
            done.append(
                _ours(error["loc"][:-1], what, f"add `{error['loc'][-1]}: …`" + (f" ({about})" if about else ""), False, error["input"])
            )
        else:
            inside = (step for step in error["loc"][1:] if isinstance(step, int))  # the words there are pydantic's names of the branches
            unions.setdefault((*error["loc"][:1], *inside), []).append(error)
    for place, group in unions.items():
        if any(other[: len(place)] == place for other in unions if other != place):
            continue  # a list came, as one branch allows: what is wrong is inside it
        given = min(group, key=lambda error: len(error["loc"]))["input"]
        wants = list(dict.fromkeys(_wanted(error) for error in group))
        label = ".".join(str(step) for step in place) or cls.__name__
        done.append(_ours(place, f"{label}: {shown(given)} is not {' or '.join(wants)}", _nearest(group, given), False, given))
    return done


def _ours(loc: Location, what: str, fix: str, on_key: bool, given: Any) -> InitErrorDetails:
    context = {"what": what, "fix": fix, "on_key": on_key}
    return InitErrorDetails(type=PydanticCustomError(OURS, "{what}", context), loc=loc, input=given)


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
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


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


def _wanted(error: ErrorDetails) -> str:
    """Return what would have been right, as a noun phrase."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _WANTED:
        return _WANTED[kind]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {context[key]:g}"
    if kind == "literal_error":
        return "one of " + str(context["expected"]).replace(" or ", ", ") if " or " in context["expected"] else str(context["expected"])
    if kind == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        return f"a list of {'at least' if kind == 'too_short' else 'at most'} {bound}"
    return error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")


def _nearest(group: list[ErrorDetails], given: Any) -> str:
    """Return the nearest allowed word, when words were allowed and one was given."""
    words = [word.strip("'") for error in group if error["type"] == "literal_error" for word in _words(error["ctx"]["expected"])]
    near = closest(given, words) if isinstance(given, str) and words else None
    return f"did you mean {near!r}?" if near else ""


def _words(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")
