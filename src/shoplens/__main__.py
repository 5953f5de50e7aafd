"""`python -m shoplens` is `shoplens`."""

from shoplens.cli import main

main()
