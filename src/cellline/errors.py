"""What a person is told when something of theirs is wrong."""


class UserError(Exception):
    """A mistake of the user's: what is wrong, where, and what to do about it.

    A verb prints the message on stderr and ends with exit status 2, without a traceback. Anything
    else that is raised is a fault of ours and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """An exception's first line, to be part of a message."""
    return (str(error) or type(error).__name__).splitlines()[0]
