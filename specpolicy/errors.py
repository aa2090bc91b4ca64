"""The one exception class of specpolicy's users, and the texts of the exceptions of others."""

from collections.abc import Sequence


class SpecpolicyError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """


def error_text(error: BaseException, named: bool = True) -> str:
    """Return an exception's text, if `named` after the name of its class. Of one whose text cannot be read, the name:
    an exception in the handling of another would hide both."""
    try:
        return f"{type(error).__name__}: {error}" if named else str(error)
    except Exception:
        return type(error).__name__


def failed(what: str, error: BaseException) -> SpecpolicyError:
    """Return the error that says what has failed, and how; `error` is its cause."""
    found = SpecpolicyError(f"{what} failed: {error_text(error)}")
    found.__cause__ = error
    return found


def summed_up(errors: Sequence[SpecpolicyError]) -> SpecpolicyError | None:
    """Return one error for all: the first, with the others in its message; None for none."""
    if len(errors) < 2:
        return errors[0] if errors else None
    summary = SpecpolicyError("; ".join(str(error) for error in errors))
    summary.__cause__ = errors[0].__cause__
    return summary
