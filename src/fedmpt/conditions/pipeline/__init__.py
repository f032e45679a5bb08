"""From combinations of labels to conditions by a language model: describe, then summarise.

It may import what all of `conditions` may, and `conditions.labels`.
"""
