"""What a user can cause and mend. Every message is one sentence: what is wrong and what to do."""


class UserError(Exception):
    """Anything that the command line reports as a sentence instead of a traceback."""


class DeviceError(UserError):
    """This machine has no such device."""


class DataError(UserError):
    """The images cannot be had."""


class DownloadError(DataError):
    """MNIST is not there and cannot be downloaded."""


class CheckpointError(UserError):
    """A checkpoint, or what is needed to resume, cannot be used."""


class BusyError(UserError):
    """Another process is training in the same folder."""


class DivergenceError(UserError):
    """The loss or the parameters are no longer finite."""


class ExplorerError(UserError):
    """A model cannot be put into the page that explores it."""


class Interrupted(UserError):
    """A signal asked the training to stop, and its state has been saved."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal
