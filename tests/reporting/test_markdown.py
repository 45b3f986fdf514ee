"""The text of the report, from small made-up results."""

import itertools
import re
from pathlib import Path

import pytest
from made_up_results import REASON
from ruamel.yaml import YAML
from surroundings import ROOT

from recolor.evaluation.metrics import METRICS, SetMetric
from recolor.reporting.figures import bars
from recolor.reporting.markdown import results_markdown, timings_markdown
from recolor.reporting.report import headline
from recolor.reporting.results import Results

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = {"python": "3.11.7", "torch": "2.15.0"}
PAPER_TABLE = """
| test | GAN | 0.038 | 21.31 | 0.8664 | 12.66 |
| test | WGAN | 0.086 | 17.5777 | 0.7385 | 12.386 |
| train | GAN | 0.026 | 22.17 | 0.87 | 12.034 |
| train | WGAN | 0.039 | 17.14 | 0.8264 | 11.482 |
"""


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows_under(markdown: str, dataset: str, title: str) -> list[list[str]]:
    """The rows of the table under `### title` of `## dataset`, without its header."""
    section = markdown.split(f"## {dataset}\n")[1].split(f"### {title}\n")[1].split("\n#")[0]
    return [cells(line) for line in section.splitlines() if line.startswith("|")][2:]


def outline(markdown: str) -> str:
    """Headings, tables, figures and settings as they are; `...` for each paragraph of prose."""
    kept = re.compile(r"#|\||!\[|```|\s*\w+:|  - |$")
    lines = (line if kept.match(line) else "..." for line in markdown.splitlines())
    return "".join(f"{line}\n" for line, _ in itertools.groupby(lines))


def test_the_outline_of_the_report(sample: Results, mine: Results) -> None:
    expected = (GOLDEN / "results.md").read_text(encoding="utf-8")
    assert outline(results_markdown([sample, mine], "gan", VERSIONS)) == expected


def test_the_outline_of_the_timings(sample: Results) -> None:
    assert outline(timings_markdown([sample])) == (GOLDEN / "timings.md").read_text(encoding="utf-8")


def test_what_the_photos_were_used_for_is_counted(mine: Results) -> None:
    text = results_markdown([mine], "gan", VERSIONS)
    assert re.search(r"48 photos\D* 40 \D* 8 \D* 2 \(grey\), 1 \(cut short\)", text)


def test_the_papers_values_stand_beside_ours(mine: Results) -> None:
    rows = rows_under(results_markdown([mine], "gan", VERSIONS), "mine", "Beside the paper")
    ours = {(row[0], row[1]): row for row in rows}
    assert list(ours) == [(split, model) for split in ("test", "train") for model in ("grey", "L1", "GAN", "WGAN")]
    for line in PAPER_TABLE.strip().splitlines():
        split, model, fid, psnr, ssim, inception_score = cells(line)
        row = ours.pop((split, model))
        assert row[7] == f"{mine.score(split, model.lower())['fid64']:.3f}"  # the paper's FID has 64 features
        assert [row[4], row[6], row[8], row[10]] == [psnr, ssim, fid, inception_score]
    assert all([row[4], row[6], row[8], row[10]] == [""] * 4 for row in ours.values())  # the paper has no grey


def test_what_was_not_measured_stays_empty_and_has_a_reason(sample: Results, mine: Results) -> None:
    text = results_markdown([sample, mine], "gan", VERSIONS)
    assert all([row[7], row[9]] == ["", ""] for row in rows_under(text, "sample", "Beside the paper"))
    assert f"**Not measured: FID, FID-64, KID x1000, IS.** Reason: {REASON}." in text
    text = results_markdown([mine], "gan", VERSIONS)
    assert "Not measured" not in text
    assert "IS is empty" in text  # 8 test photos
    assert text.count(REASON) == 0


def test_dvcs_plots_show_metrics_under_their_labels() -> None:
    tree = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    plots = [plot for entry in tree["plots"] if isinstance(entry, dict) for plot in entry.values() if plot]
    shown = {plot["x"]["reports/results.csv"]: plot["x_label"] for plot in plots if isinstance(plot["x"], dict)}
    assert shown == {name: METRICS[name].heading.rstrip(" ↑↓") for name in shown} != {}
    assert all(METRICS[name].scale == 1 for name in shown)  # DVC plots what is stored


def test_a_new_metric_is_in_every_table_and_figure(mine: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = SetMetric(
        name="toy", label="Toy x10", better="truth", digits=".1f", scale=10, headline=True, features="", compute=len
    )
    before = bars(mine.scores)
    monkeypatch.setitem(METRICS, "toy", toy)
    mine.scores[["toy", "toy_std", "toy_true"]] = (1.25, 0.5, 2.0)
    text = results_markdown([mine], "gan", VERSIONS)
    assert [row[-2:] for row in rows_under(text, "mine", "Beyond the paper")] == [["12.5 ± 5.0", "20.0"]] * 8
    assert text.split("## mine")[0].count("12.5 (true 20.0)") == 2
    assert headline([mine], "gan")["mine.test.toy"] == 1.25
    assert bars(mine.scores).tobytes() != before.tobytes()


def test_the_sample_and_few_photos_have_a_warning(sample: Results, mine: Results) -> None:
    few = f"> **`mine` has few test photos, {mine.score('test', 'gan')['photos']}.**"
    both = results_markdown([mine, sample], "gan", VERSIONS)
    assert re.search(r"\[!CAUTION\][^!]* 48 [^!]* 12 ", both)
    assert few in both
    assert "`sample` has few" not in both
    mine.scores["photos"] = 50
    many = results_markdown([mine], "gan", VERSIONS)
    assert few not in many
    assert "[!CAUTION]" not in many


def test_the_headline_follows_loss(sample: Results) -> None:
    text = results_markdown([sample], "wgan", VERSIONS)
    assert text.startswith("# Results\n\n## Headline: WGAN\n")
    assert "| sample | **WGAN** | 8 | 20.40 [20.00, 20.80] |" in text
    assert "| sample | grey | 8 | 22.60 [22.20, 23.00] |" in text, "grey stands beside it"
