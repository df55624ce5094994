"""Training: what a batch costs, how the weights move, and how a run survives whatever stops it.

The loop is `loop.py`; read that first. Around it: `config` the settings, `loss` the objective's sums, `micro`
batches in parts, `optim` and `schedule` how the weights move, `averaging` their means, `precision` where and
how exactly it is computed, `state` exact resume, `journal` and `curves` what was measured, `clock` the time,
`pace` that of a step, `best` which evaluation counts, `signals` Ctrl-C, `events` what a display is told,
`interfaces` what the loop asks of its parts.
"""
