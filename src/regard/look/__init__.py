"""See what a model attends to: find the heads that carry something, and draw them."""
