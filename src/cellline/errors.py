"""Messages to a person: mistakes of theirs, and findings that they must not miss."""


class UserError(Exception):
    """A mistake of the user's: what is wrong, where, and what to do about it.

    A verb prints the message on stderr and exits with status 2, without a traceback. Any other
    exception is a fault of ours and keeps its traceback.
    """


class Caution(str):
    """A line that must not be missed, among lines that report a result.

    A verb prints it after "warning:"; the report lists it at the head of the page.
    """

    __slots__ = ()


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, for use inside another message."""
    return (str(error) or type(error).__name__).splitlines()[0]
