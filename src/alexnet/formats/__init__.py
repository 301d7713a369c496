"""Weights out to other libraries and formats, and back."""

from alexnet.formats.export import FORMATS, export, import_model

__all__ = ["FORMATS", "export", "import_model"]
