"""The one exception of `tflite_export` for failures that are not a wrong argument."""


class ExportError(Exception):
    """A model could not become the file that was asked for; the message names the operation and the layer."""
