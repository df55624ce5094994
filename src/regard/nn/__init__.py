"""The pieces of every Transformer, one idea a file.

Shapes, for the whole package:
    B batch, T query positions, S key positions, H query heads, G key/value heads, K head size, D model width,
    V vocabulary, F inner width of the feed-forward, N words of a sentence, L labels.
"""
