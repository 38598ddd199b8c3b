"""Maps with all that they depend on in place, and their Jacobians as products."""
