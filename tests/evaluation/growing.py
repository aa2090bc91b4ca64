"""Jobs that depend on results, for tests of those who hand out jobs."""


class Growing:
    """An iterator of a list's jobs, the last first, which goes on when there are more, also after it has stopped."""

    def __init__(self, left):
        self.left = left

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        return self.left.pop()
