"""Load tests: people who use a shop's system, many at once; docs/how-to/load-test.md tells how to run them."""
