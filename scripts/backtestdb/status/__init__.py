"""How everything stands: facts are looked up here, judged in one place, and shown by `make status` and the page."""
