"""A server on 127.0.0.1 that speaks the vendor's stocks API, so that tests and `make demo` need no
key.

Real public-domain prices for five tickers, made-up but repeatable ones for all others. From the
bottom up: sessions and noise; listings, made_up, source and splits; intraday; exchange, which puts
them together; aggregates, reference and split_list, which answer; access, faults and journal, which
decide what happens to a request; control and server, which speak HTTP.
"""
