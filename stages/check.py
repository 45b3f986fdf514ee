"""Looks at every setting before anything else runs."""

from stages import paths, run


def main() -> None:
    """Checks params.yaml: every section, as every dataset sees it, and what sections require of each other and of this machine.

    DVC removes a stage's outputs before it runs the stage. Without this check a wrong setting would cost the last results.
    """
    text = paths.PARAMS.read_bytes() if paths.PARAMS.exists() else b""

    from recolor.core.errors import UserError
    from recolor.core.storage import atomic_file
    from stages.settings import check, check_machine

    for dataset in check(paths.PARAMS):
        check_machine(paths.PARAMS, dataset)
    if paths.PARAMS.read_bytes() != text:  # DVC hashes the file when this ends, and would record the edit as checked
        raise UserError(f"{paths.PARAMS} was changed while it was checked; run it again")
    with atomic_file(paths.CHECKED, "a line of text") as path:
        path.write_text("every setting is valid\n")


if __name__ == "__main__":
    run(main)
