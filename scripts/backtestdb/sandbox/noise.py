"""Numbers that look random and are a pure function of a key, a counter and a stream.

A generator with a state would make a bar depend on what was asked before it. Here every bar is
computed from the ticker and the session alone, in any process, order, range or time zone.
"""

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from backtestdb.sandbox.sessions import Floats, Ints

Keys = npt.NDArray[np.uint64]

# The constants of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
# 2014).
GOLDEN, MIX_1, MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
STREAM = 0xD1B54A32D192ED03
MASK = 2**64 - 1

# Sessions between two knots of the walk. Amplitudes grow with the square root of the distance, as
# those of a random walk do.
PERIODS = (1, 4, 16, 64, 256, 1024, 4096)


def make_key(text: str) -> int:
    """Return a 64-bit number for a name; unlike hash(), the same in every process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def uniform(keys: Keys, counters: Ints, stream: int) -> Floats:
    """Return values in [0, 1), one for each pair of key and counter (the two are broadcast)."""
    z = counters.astype(np.uint64) * np.uint64(GOLDEN) + keys
    z += np.uint64((stream + 1) * STREAM & MASK)
    z ^= z >> np.uint64(30)
    z *= np.uint64(MIX_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(MIX_2)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def centred(keys: Keys, counters: Ints, stream: int) -> Floats:
    """Return values with mean 0 and standard deviation 1 (uniform, so never beyond 1.74)."""
    return (uniform(keys, counters, stream) - 0.5) * 12**0.5


def walk(keys: Keys, sessions: Ints) -> Floats:
    """Return the place of a random walk at each session, without walking there.

    A sum of lines between random knots, sparse knots far apart in height: its spectrum is that of a
    random walk with steps of about 1.6.
    """
    total: Floats = np.zeros(np.broadcast_shapes(keys.shape, sessions.shape))
    for stream, period in enumerate(PERIODS):
        knot, step = np.divmod(sessions, period)
        height = centred(keys, knot, stream)
        if period > 1:
            height += (centred(keys, knot + 1, stream) - height) * (step / period)
        total += height * period**0.5
    return total
