"""Images: the data, the models that are compared on them, their training, and the paper's tables."""
