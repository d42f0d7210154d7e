"""A recipe and its rows for other trainers."""
