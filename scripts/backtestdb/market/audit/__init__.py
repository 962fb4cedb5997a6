"""The stored market data examined without a request: the rules of `make audit`, one file a
family."""
