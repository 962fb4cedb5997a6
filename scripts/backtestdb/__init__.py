"""What every script of this project shares: see docs/DATABASE.md for the map of the rooms."""

import signal
import sys
from pathlib import Path

# Ctrl-C while a command still loads its packages (half a second) ends it as any program, without a
# traceback; `console.run` takes it over from there. Programs that import this package keep their
# own way.
if (
    Path(getattr(sys.modules.get("__main__"), "__file__", None) or "/").parent
    == Path(__file__).parents[1]
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
