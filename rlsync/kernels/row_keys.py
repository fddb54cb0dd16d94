"""The keys of row digests: 64 bits for each token id, of two products of 32 bits, which every processor has.

The lower half of a token's key is odd, so a change of one logit always changes the digest.
"""

LOW, LOW_SHIFT = 0x9E3779B1, 15
"""The lower half is x ^ (x >> LOW_SHIFT) | 1 of x = token * LOW, modulo 2^32."""
HIGH, HIGH_SHIFT = 0x85EBCA77, 13
"""The upper half is x ^ (x >> HIGH_SHIFT) of x = token * HIGH, modulo 2^32."""
