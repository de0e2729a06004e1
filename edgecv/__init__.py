"""edgecv: take a vision model to a board, prove it, and run it there."""

__version__ = "0.1.0"
