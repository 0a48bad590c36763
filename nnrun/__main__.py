"""`python -m nnrun` is the same program as `nnrun`."""

try:
    from nnrun.cli import main

    main()
except KeyboardInterrupt:  # before any command could take it
    raise SystemExit(130) from None
