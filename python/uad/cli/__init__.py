"""The command lines, one module per program. No module outside this package imports one of them."""
