"""The one exception of `tfcompress` for failures that are not a wrong argument."""


class CompressionError(Exception):
    """A model could not be compressed as asked; the message says which layer and why."""
