"""nnrun: one YAML file becomes a trained network, its checkpoint, its metrics and a report."""

__version__ = "0.1.0"
