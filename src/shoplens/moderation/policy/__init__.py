"""Policies: bands per signal, their versions, the dry run, and the page on which people edit them."""
