"""Encrypted copies that leave the machine, and the way back from them.

From below: `store` (bytes under names that are never written twice), `seal` (age), `objects`
(segments), `delta` (what changed since a base), `record` (what makes a copy one), `chain` (which
copy refers to which), `send`, `watch` (the living process), `fetch` and `restore` (the way back),
`check`, `prune`.
"""
