"""Which combinations of labels are described: counted at the clients, added up, chosen.

It may import what all of `conditions` may.
"""
