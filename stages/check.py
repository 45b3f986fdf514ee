"""Looks at every setting before anything else runs."""

from stages import at_end, paths, run


def main() -> None:
    """Checks params.yaml: every section, as every dataset sees it, and what sections ask of each other and of this machine.

    DVC removes a stage's outputs before it runs it. Without this stage, the typing error in a setting, a device or a folder
    that is not there would be found by the stage that needs it, when its last results are gone already. Its output is always
    the same, so nothing else runs again because of it.
    """
    text = paths.PARAMS.read_bytes() if paths.PARAMS.exists() else b""

    from recolor.core.errors import UserError
    from recolor.core.storage import atomic_file
    from stages.settings import check, check_machine

    def unchanged() -> None:
        # DVC hashes the file when this ends: an edit made meanwhile would be recorded as checked.
        if paths.PARAMS.read_bytes() != text:
            raise UserError(f"{paths.PARAMS} was changed while it was checked; run it again")

    for dataset in check(paths.PARAMS):
        check_machine(paths.PARAMS, dataset)
    at_end(unchanged)
    with atomic_file(paths.CHECKED, "a line of text") as path:
        path.write_text("every setting is valid\n")


if __name__ == "__main__":
    run(main)
