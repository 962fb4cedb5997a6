"""What can go wrong between this machine and the place of its copies, each with its cause."""

from backtestdb.errors import ProjectError, VerificationError


class OffsiteError(ProjectError):
    """The store cannot be used: network, server, credentials, bucket, space, clock, passphrase."""


class TooSlowError(OffsiteError):
    """No answer in time: server or network gone, or a line too slow for so many bytes."""


class MissingObjectError(OffsiteError):
    """The store has no object of this name."""


class NameTakenError(OffsiteError):
    """The store has an object of this name already, and kept it."""


class DamagedObjectError(VerificationError):
    """What the store returned is not what was stored, or cannot be opened."""
