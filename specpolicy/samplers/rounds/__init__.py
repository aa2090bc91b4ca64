"""Three forms of a round of speculation: tensors for a batch, numpy for one chunk, one launch on a GPU."""
