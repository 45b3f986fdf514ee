"""The one kind of error that is not a bug."""


class UserError(Exception):
    """Something that the user can mend. Its message is one line and says what to do; no traceback is shown for it."""
