"""The one kind of error that is not a bug."""


class UserError(Exception):
    """Something that the user can mend. Its message is one line and states what to do; no traceback is shown for it."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """`text` in one line of printable Unicode: the bytes of other characters, and of a path that is not UTF-8, become %XX."""

    def encoded(character: str) -> bytes:
        is_byte = "\udc80" <= character <= "\udcff"  # of a path; JSON may hold the other surrogates
        return character.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")

    return "".join(c if c.isprintable() else "".join(f"%{byte:02X}" for byte in encoded(c)) for c in text)


def one_line(text: object, most: int | None = None) -> str:
    """`text`, such as a library's exception, with single spaces, cut after `most` characters."""
    return " ".join(str(text).split())[:most]
