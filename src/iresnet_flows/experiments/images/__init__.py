"""Images: the data, the models compared on them, their training, and the tables of the paper."""
