"""What a TaskGroup's failure comes down to, for the one line that is said about it."""


def first_cause(error: BaseException) -> BaseException:
    """Return the first exception inside nested groups, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
