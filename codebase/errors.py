"""What a user can cause and mend. Every message is one sentence: what is wrong and what to do."""


class UserError(Exception):
    """Anything that the command line reports as a sentence instead of a traceback."""

    status = 1  # with which the program exits


class DeviceError(UserError):
    """This machine has no such device."""

    status = 2


class DataError(UserError):
    """The images cannot be had."""


class DownloadError(DataError):
    """The images are not there and cannot be downloaded."""


class CheckpointError(UserError):
    """A checkpoint, or what is needed to resume, cannot be used."""


class BusyError(UserError):
    """Another process is training in the same folder."""


class DivergenceError(UserError):
    """The loss, a bound or the parameters are no longer finite."""


class PeerError(UserError):
    """Another process of the same torchrun has ended."""


class ExplorerError(UserError):
    """A model cannot be put into the page that explores it."""


class Interrupted(UserError):
    """A signal asked the program to stop, and what the training has reached is saved."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.status = 128 + signal


def explain(error: Exception) -> str | None:
    """The sentence for an error that a user can cause, or None for a mistake in the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed: pip install -r requirements.txt"
    # PyTorch has three kinds of errors for memory that has run out; they share a word.
    if isinstance(error, MemoryError) or "allocate" in str(error):
        return "there is not enough memory free; end other programs, or choose a smaller --z"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None
