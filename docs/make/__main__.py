"""`python -m docs.make` builds the site in build/site; `--write` first puts what the blocks print into the pages: read the difference."""

from __future__ import annotations

import sys

from docs.make.pages import ROOT
from docs.make.site import build

if __name__ == "__main__":
    out = ROOT / "build" / "site"
    faults = build(out, write="--write" in sys.argv[1:])
    if faults:
        sys.exit("\n\n".join(faults))
    print(out / "index.html")
