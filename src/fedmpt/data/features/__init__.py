"""Features of images, computed once and stored: keys, building, reading in any order, listing, removing.

It may import what all of `data` may.
"""
