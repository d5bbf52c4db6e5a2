"""Bytes of a good file, with a few of them changed, cut out or repeated."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def edited(draw: st.DrawFn, good: bytes, pieces: tuple[bytes, ...] = ()) -> bytes:
    """Draws what becomes of `good` under up to four edits.

    Args:
        draw: given by Hypothesis.
        good: a file as it should be.
        pieces: what may be put in, beside bytes of any kind.
    """
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.sampled_from([start, start + 1, start + 4, start + 40, len(content)]))
        new = draw(st.sampled_from([b"", *pieces]) | st.binary(max_size=4))
        content[start:stop] = new if draw(st.booleans()) else new + content[start:stop] * 2
    return bytes(content)
