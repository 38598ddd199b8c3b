"""Real data, contenders, measurements, training and reports behind the command line."""
