"""`python -m nnrun` is the same program as `nnrun`."""

from nnrun.cli import main

main()
