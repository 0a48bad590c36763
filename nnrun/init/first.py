"""A first config for the user's own table or folder of pictures: what it holds decides, and the comments say why.

The rows are split as training will split them: the baseline in the config is that of its own test part.
"""

from __future__ import annotations

import os
from pathlib import Path

from nnrun.errors import DataError, InputError, not_writable
from nnrun.init.parts import FirstConfig
from nnrun.init.pictures import for_pictures
from nnrun.init.table import for_table


def first_config(path: Path, target: str | None, config: Path) -> FirstConfig:
    """Return a config for a table, or for a folder that has one sub-folder of pictures for each class.

    Args:
        target: the column to predict; None for pictures.
        config: where it will stand; the path of the data is written relative to its folder.

    Raises:
        DataError: the data is missing, broken or too little, or the target is not given or cannot be predicted.
    """
    written = os.path.relpath(path.absolute(), config.parent.absolute())
    if path.is_dir():
        if target is not None:
            raise DataError(f"--target {target} does not go with a folder of pictures", fix="leave it out: the sub-folders are the classes")
        return for_pictures(path, written, config)
    return for_table(path, target, written, config)


def write_config(path: Path, text: str, *, force: bool) -> None:
    """Write a config; one that is there is replaced only when `force` says so.

    Raises:
        InputError: there is something at `path`.
        EnvironmentFault: it cannot be written.
    """
    if path.is_dir():
        raise InputError(f"--out {path} is a folder", fix=f"give a file, such as {path / 'first.yaml'}")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} is there already", fix="give another with --out, or write over it with --force") from None
    except OSError as error:
        raise not_writable(path, error) from None
