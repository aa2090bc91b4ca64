"""The one exception class of specpolicy's users, and the texts of the exceptions of others."""


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
