"""The page and its server: `regard serve`."""
