"""Posteriors that are known, and what approximates them."""
