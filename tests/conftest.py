"""What all tests share. Hypothesis: enough examples to find things, few enough for a quick suite, no
deadline on a busy machine."""

import signal

from hypothesis import Phase, settings

settings.register_profile("quick", deadline=None, max_examples=60)
# The same ones at each run, and a failing one is not made small: for mutants.py.
settings.register_profile(
    "mutants",
    deadline=None,
    max_examples=20,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("quick")

# A shell starts a job in the background with Ctrl-C ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
