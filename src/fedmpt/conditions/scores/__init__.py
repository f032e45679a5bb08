"""What the conditions of a trained FedMPT are worth.

It may import what all of `conditions` may.
"""
