"""What the tests of outputs look at."""

from specpolicy.outputs import LOCK


def place(verb, directory):
    """What a verb writes: a directory, or the file of a collection."""
    return directory / "data.hdf5" if verb == "collect" else directory


def tree(directory):
    """Everything below a directory, with its content."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != LOCK}


def refused(capsys):
    """The one line on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in lines[0], lines
    return lines[0]
