"""A copy of a JPEG without what libjpeg warns of although it does no harm."""

HARMLESS = (
    "extraneous bytes",
    "Invalid SOS parameters",  # Samsung's phones write three zeros
    "unknown JFIF revision",
    "Unknown Adobe color transform",
    "bad ICC marker",
)
"""Words of warnings after which all pixels are right. Of several warnings libjpeg tells only the first."""
_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_SEQUENTIAL = (b"\xff\xc0", b"\xff\xc1")
_METADATA = {bytes([0xFF, marker]) for marker in (*range(0xE0, 0xF0), 0xFE)}


def with_plain_header(encoded: bytes) -> bytes:
    """Copy a JPEG in YCbCr without metadata before its first scan, whose parameters become valid.

    Decoded strictly, the copy shows whether a harmful warning follows a harmless one. If the header cannot be followed
    to a scan, the file is returned as it is: stray bytes between segments may be those of a table that was lost.
    """
    parts, at, sequential = [b"\xff\xd8", _JFIF], 2, False
    while encoded[at : at + 1] == b"\xff":
        marker = encoded[at : at + 2]
        after = at + 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker == b"\xff\xda":
            scan = encoded[at : after - 3] + b"\0\x3f\0" if sequential else encoded[at:after]
            return b"".join([*parts, scan, encoded[after:]])
        sequential |= marker in _SEQUENTIAL
        if marker not in _METADATA:
            parts.append(encoded[at:after])
        at = after
    return encoded
