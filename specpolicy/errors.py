"""The one exception class of specpolicy's users."""


class SpecpolicyError(ValueError):
    """Bad input: one line that says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with code 2.
    """
