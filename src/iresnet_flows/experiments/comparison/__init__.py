"""The head-to-head: flows trained alike on the same data, measured and reported."""
