"""The federation: the step of a client, the step of the server, rounds and checkpoints.

It may import `evaluation` and all below it.
"""
