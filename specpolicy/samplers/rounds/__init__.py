"""How a round of speculation is computed: for a batch in tensors, for one chunk in numpy, or as one launch on a GPU."""
