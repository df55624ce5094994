"""From a trained model to text: transforms of logits, and the searches that choose tokens.

config.py   SearchConfig, Hypothesis and Decoding: what a search is asked, gives and sees (no torch)
logits.py   pure transforms of one step's logits
cutoffs.py  filters by typicality, by a least probability
search.py   `search`: greedy and sampling here, beam search in beam.py
coverage.py  how much of its source each hypothesis has looked at
constraints.py  which tokens may follow, by a function or by a list of whole texts
speculate.py  guesses by lookup or by a smaller model, which save steps and change nothing
drawing.py  what greedy search and sampling share
published.py  what a published model's files say about how it is meant to write
"""
