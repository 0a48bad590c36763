"""What every class of the config shares: frozen, strict, closed, rules between fields, and faults in the words of a person.

Pydantic does the checking; its errors are reworded where they arise (see `nnrun.spec.wording`), because only there the class, and so the
allowed names, are known. `fault()` is how a check of ours reports, in the same form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from nnrun.spec.wording import Location as Location
from nnrun.spec.wording import fault as fault
from nnrun.spec.wording import no_such_name as no_such_name
from nnrun.spec.wording import reworded
from nnrun.spec.wording import shown as shown

Rule = Callable[[Any], Iterator[ValidationError]]
AnyRule = TypeVar("AnyRule", bound=Rule)


def rule(*needs: str) -> Callable[[AnyRule], AnyRule]:
    """Mark a method that yields a fault for each way in which the fields `needs` do not go together.

    It is asked whenever those fields are valid by themselves, whatever is wrong with the others.
    """

    def mark(check: AnyRule) -> AnyRule:
        check.needs = set(needs)  # type: ignore[attr-defined]
        return check

    return mark


class Spec(BaseModel):
    """A frozen piece of a config; a docstring under each field is its description."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    rules: ClassVar[list[Rule]] = []

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.rules = [method for method in vars(cls).values() if hasattr(method, "needs")]

    @classmethod
    def keys(cls) -> list[str]:
        """Return the keys that a config may write here."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault(cls, value: Any, handler: ModelWrapValidatorHandler[Spec]) -> Any:
        """Check the fields, then the rules between those that are valid; all faults come together."""
        faults, faulty = [], set()
        try:
            made: Spec | None = handler(value)
        except ValidationError as error:
            faults = reworded(cls, error.errors())
            faulty = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
            made = cls._from_the_valid(value, faulty, handler)
        for one in cls.rules if made else ():
            if not faulty & one.needs:  # type: ignore[attr-defined]
                faults += [again for broken in one(made) for again in reworded(cls, broken.errors())]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return made

    @classmethod
    def _from_the_valid(cls, value: Any, faulty: set[str], handler: ModelWrapValidatorHandler[Spec]) -> Spec | None:
        """Return the spec without its faulty fields, for the rules that do not need them; a required one takes its first example."""
        if not cls.rules or not isinstance(value, dict):
            return None
        needed = {name: field.examples[0] for name, field in cls.model_fields.items() if field.is_required() and field.examples}
        try:
            return handler(needed | {key: item for key, item in value.items() if key not in faulty})
        except ValidationError:
            return None
