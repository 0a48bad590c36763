"""Ludwig's own command line, in the environment of `bench/requirements-ludwig.txt`: `python run_ludwig.py train --config …`."""

import operators  # noqa: F401 (beside this script)

if __name__ == "__main__":
    from ludwig.cli import main

    main()
