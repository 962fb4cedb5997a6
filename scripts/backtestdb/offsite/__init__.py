"""Encrypted copies that leave the machine, and the way back from them.

From below: `store` (bytes under names that are never written twice), `seal` (age), `objects`
(segments), `delta` (what changed since a base), `record` (what makes a copy one), `chain` (which
copy refers to which), `send`, `send_full`, `send_small`, `commits` (was anything committed?),
`watch` (the process that stays), `fetch` and `restore` (the way back), `check`, `prune`.

What holds in all of them: a store that cannot be used is an OffsiteError, within 60 seconds and
with its cause; an object that is gone is a MissingObjectError; bytes that are not what was sent are
a VerificationError (DamagedObjectError when an object shows it by itself). No message holds a
secret.
"""
