"""A package only so that `python -m docs.make` finds it beside any other `docs`."""
