"""From a trained model to text: transforms of logits, and the searches that choose tokens.

config.py   SearchConfig, Hypothesis and Decoding: what a search is asked, gives and sees (no torch)
logits.py   pure transforms of one step's logits
search.py   `search`: greedy and sampling here, beam search in beam.py
published.py  what a published model's files say about how it is meant to write
"""
