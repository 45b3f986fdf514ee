"""One photo: opened safely, decoded to sRGB, its metadata, its Lab values. May import core."""
