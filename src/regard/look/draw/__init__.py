"""Draw attention; one file for each place where a picture may stand."""
