"""FedMPT's claim tried on a world where every factor is known: three methods, two tests, one page."""
