"""The root of all failures that a user can mend."""


class UserError(Exception):
    """Something outside the program is not as it must be; the message names the thing and the remedy.

    The command line prints it as one line and exits with status 1; everything else is a defect and shows its trace.
    """

    @property
    def unnamed(self) -> str:
        """The message for a log, which is to name no person."""
        return str(self)
