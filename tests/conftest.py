"""Hypothesis: enough examples to find things, few enough for a quick suite, no deadline on a busy
machine."""

from hypothesis import settings

settings.register_profile("quick", deadline=None, max_examples=60)
settings.load_profile("quick")
