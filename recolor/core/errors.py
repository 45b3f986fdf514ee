"""The one kind of error that is not a bug."""


class UserError(Exception):
    """Something that the user can mend. Its message is one line and says what to do; no traceback is shown for it."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """`text` in one line of printable Unicode.

    Every byte of a character that is not printable (newlines, control and invisible characters, surrogates) and every byte of
    a path that is not UTF-8 become %XX.
    """
    return "".join(c if c.isprintable() else "".join(f"%{byte:02X}" for byte in _encoded(c)) for c in text)


def _encoded(character: str) -> bytes:
    is_byte = "\udc80" <= character <= "\udcff"  # of a path; JSON may hold the other surrogates
    return character.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
