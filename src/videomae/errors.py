"""The errors a caller may want to catch: the fault is in a file, a checkpoint or the data, not in the code."""


class VideoMAEError(Exception):
    """Base of the errors below; the command line prints these as one line."""


class VideoError(VideoMAEError):
    """A video cannot be read (missing, empty, not a video, corrupt or cut short), or cannot be written."""


class CheckpointError(VideoMAEError, OSError):
    """A checkpoint cannot be loaded: not found, not a checkpoint, or its tensors do not fit the model.

    It is an OSError too, which code for transformers catches.
    """


class MismatchError(CheckpointError, RuntimeError):
    """The tensors of a checkpoint do not fit the model: one is missing, left over or of another shape.

    It is a RuntimeError too, which PyTorch and transformers raise here.
    """


class MissingPackageError(VideoMAEError, ImportError):
    """A package that this feature needs is not installed; the message says which extra brings it."""


class DataError(VideoMAEError):
    """A data set cannot be used: a faulty manifest, unknown classes, or too many unreadable videos."""


class ExportError(VideoMAEError):
    """An exported model disagrees with its source, or is slower; it was not written."""
