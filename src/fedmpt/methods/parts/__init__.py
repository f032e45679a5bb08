"""What methods share: prompts, heads, losses, transport, adapters, initial values.

It may import what all of `methods` may.
"""
