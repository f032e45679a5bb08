"""One training run in one folder: its config, its records, and how it is started and continued.

It may import `federated` and all below it.
"""
