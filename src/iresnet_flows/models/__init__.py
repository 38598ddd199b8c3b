"""What is built of layers: image densities, and classifiers that can be inverted."""
