"""The errors that a user may see, each with what is wrong and what to do next."""


class ProjectError(Exception):
    """A failure that the user can act on.

    `what` names the thing, the value and the bound that it broke; `next_step` is the command or the
    change that helps, empty when there is none.
    """

    exit_code = 1

    def __init__(self, what: str, *, next_step: str = "") -> None:
        super().__init__(what)
        self.next_step = next_step


class UsageError(ProjectError):
    """A wrong argument of a command."""

    exit_code = 2


class SettingsError(ProjectError):
    """A wrong value in the environment or in `.env`."""

    exit_code = 2


class DatabaseFileError(ProjectError):
    """A database file is missing, empty, damaged or not a database."""


class BusyError(ProjectError):
    """Another process holds what this one needs, and did not let go in time."""


class SpaceError(ProjectError):
    """The disk lacks `missing_bytes` of room; raised before anything is written."""

    def __init__(self, what: str, *, missing_bytes: int = 0, next_step: str = "") -> None:
        super().__init__(what, next_step=next_step)
        self.missing_bytes = missing_bytes


class VerificationError(ProjectError):
    """A check of a database or a backup did not pass."""


class DeclinedError(ProjectError):
    """The user was asked, and said no: nothing was changed, and what was to follow must not."""
