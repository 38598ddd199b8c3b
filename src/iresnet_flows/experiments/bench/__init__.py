"""Our blocks beside those of other libraries, measured in one run."""
