"""The scoreboard: ratios of things measured side by side. Not part of the package; `make bench` runs it."""
