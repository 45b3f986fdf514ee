"""Looks at every setting before anything else runs."""

from stages import paths, run


def main() -> None:
    """Checks params.yaml: every section, as every dataset sees it, and what sections ask of each other.

    DVC removes a stage's outputs before it runs it. Without this stage, the typing error in a setting would be found by the
    stage that reads it, when its last results are gone already. Its output is always the same, so nothing else runs again
    because of it.
    """
    from recolor.disk import room_for, whole
    from recolor.settings import check

    check(paths.PARAMS)
    with room_for("a line of text", paths.CHECKED.parent), whole(paths.CHECKED) as path:
        path.write_text("every setting is valid\n")


if __name__ == "__main__":
    run(main)
