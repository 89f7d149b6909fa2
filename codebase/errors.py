"""What a user can cause and mend. Every message is one sentence: what is wrong and what to do."""


class UserError(Exception):
    """Anything that the command line answers with a sentence instead of a traceback."""

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
    # Memory that has run out raises many types of errors; their messages share words.
    memory = any(words in str(error) for words in ("allocate", "failed to map"))
    if isinstance(error, MemoryError) or (memory and isinstance(error, RuntimeError | ImportError)):
        return "there is not enough memory free; end other programs, or choose a smaller --z"
    if isinstance(error, ImportError):
        return f"{error}; to install it anew: pip install --force-reinstall -r requirements.txt"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None
