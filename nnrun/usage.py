"""A command line that cannot be understood, told as every other error: what, and the mend. Typer's own words come in a box."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from nnrun.errors import InputError, closest
from nnrun.peers import peers, tell_once
from nnrun.terminal import say, user_errors

UsageError: Any = typer.BadParameter.__base__
"""What every usage error is; Typer has no public name for it since it brings its own copy of click."""


class Group(TyperGroup):
    """The commands of nnrun."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *rest: Any, **more: Any) -> Any:
        """Run a command line, and end the program with its exit code."""
        given = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            with user_errors():  # also of what is no command: the help and the version have to be written, too
                try:
                    code = super().main(given, prog_name, *rest, **{**more, "standalone_mode": False})
                except UsageError as error:
                    told = str(self._in_our_words(error, given))
                    code = tell_once(error.exit_code, lambda: say(told))
        except typer.Exit as end:
            code = end.exit_code
        code = code if isinstance(code, int) else 0
        if peers() is not None:  # what several processes exchange their numbers by is not taken down: another may be lost, or late
            sys.stdout.flush()
            os._exit(code)
        sys.exit(code)

    def _in_our_words(self, error: Any, given: list[str]) -> InputError:
        """Return a usage error of Typer as one of ours."""
        first = next((word for word in given if not word.startswith("-")), "")
        called = f"nnrun {first}" if first in self.commands else "nnrun"
        parameters: list[Any] = self.commands[first].params if first in self.commands else self.params
        see = f"{called} --help shows how it is used"
        option, parameter = getattr(error, "option_name", None), getattr(error, "param", None)
        taker = next((one for one in parameters if option in one.opts), None)
        if taker is not None and taker.is_flag:
            return InputError(f"{called}: {option} takes no value", fix=f"write {option} alone")
        if taker is not None:
            return InputError(f"{called}: {option} wants a value", fix=f"write {option} {_value(taker)}")
        if option is not None:
            return InputError(f"{called} has no option {option}", fix=_meant(option, parameters, given, see))
        if parameter is not None and not error.message:
            whole = " ".join([called, *(_written(one) for one in parameters if one.required)])
            return InputError(f"{called}: {_written(parameter)} is missing", fix=f"write {whole}")
        if first and called == "nnrun":
            near = closest(first, self.commands)
            return InputError(f"nnrun has no command {first!r}", fix=f"did you mean {near!r}? ({see})" if near else see)
        extra = re.fullmatch(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", error.message)
        if extra:
            return InputError(f"{called} takes no further {extra[1]!r}", fix=see)
        return InputError(f"{called}: {error.format_message().rstrip('.')}", fix=see)


def _meant(option: str, parameters: list[Any], given: list[str], see: str) -> str:
    """Return the fix for an option that does not exist: the nearest one, or the key of the config that it names."""
    names = [name.lstrip("-") for one in parameters for name in one.opts if name.startswith("--")]
    near = closest(option.strip("-"), names)
    if near is None and "set" in names:
        from nnrun.spec.experiment import Experiment

        key = closest(option.strip("-"), Experiment.model_fields)
        value = next(iter(given[given.index(option) + 1 :] if option in given else ()), "VALUE")
        return f"a value of the config is set by --set {key}={value}" if key else see
    return f"did you mean --{near}? ({see})" if near else see


def _written(parameter: Any) -> str:
    """Return a parameter as it is typed: `CONFIG`, or `--checkpoint PATH`."""
    return f"{parameter.opts[0]} {_value(parameter)}" if parameter.opts[0].startswith("-") else str(parameter.metavar)


def _value(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())
