"""What can be said of conditions without a language model.

It may import what all of `conditions` may.
"""
