"""FedMPT's claim tried on drawn pictures: three methods, two tests, one page.

It may import what all of `report` may.
"""
