"""Tables and pictures made from rows, which lines lead, and sources that are scored together."""

from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from hf_evl_ecg.scores.lines import headline_lines, main_lines
from hf_evl_ecg.scores.models import by_source
from hf_evl_ecg.scores.names import find_source, split_task, task_text
from hf_evl_ecg.scores.picture import plot_means, plot_scores
from hf_evl_ecg.scores.report import write_report
from hf_evl_ecg.scores.tables import markdown_table, seed_table


def test_table_marks_what_beats_chance():
    row = {"method": "a", "seed": None, "task": "s:t", "dim": None, "metric": "accuracy", "n": 9, "chance": 0.5}
    rows = [
        {**row, "value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "above_chance": True},
        {**row, "method": "b", "value": 0.6, "ci_low": 0.4, "ci_high": 0.7, "above_chance": False},
    ]
    lines = markdown_table(rows).splitlines()
    assert lines[2] == "| s:t | accuracy | 9 | 50.0 | **80.0 [70.0, 90.0]** | 60.0 [40.0, 70.0] |"


def test_seeds_are_summarised():
    row = {"method": "a", "task": "s:t", "dim": None, "metric": "accuracy", "n": 9, "chance": 0.5}
    rows = [
        {**row, "seed": 0, "value": 0.6, "ci_low": 0.4, "ci_high": 0.9, "above_chance": False},
        {**row, "seed": 1, "value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "above_chance": True},
        {**row, "seed": 0, "method": "b", "value": 0.7, "ci_low": 0.6, "ci_high": 0.9, "above_chance": True},
        {**row, "seed": 0, "task": "s:t/AF", "value": 0.7, "ci_low": 0.6, "ci_high": 0.9, "above_chance": True},
    ]
    lines = seed_table(rows).splitlines()
    assert lines[2] == "| s:t | accuracy | 9 | 50.0 | 70.0 ± 14.1 (1/2) | 70.0 (1/1) |"
    assert len(lines) == 5


def test_real_sources_are_also_scored_together():
    item = {"format": "closed", "answer": "yes", "labels": ["AF"]}
    classes = {"format": "open", "answer": "x", "labels": ["AF"], "options": ["atrial fibrillation"]}
    named = [("ludb", item), ("cinc/ptb", item), ("simulated", item), ("ludb", classes)]
    groups = by_source([({"source": source, **item}, None) for source, item in named])
    assert {name: len(pairs) for name, pairs in groups.items()} == {"real": 2, "ludb": 2, "cinc/ptb": 1, "simulated": 1}
    assert set(by_source([({"source": "ludb", **item}, None), ({"source": "simulated", **item}, None)])) == {
        "ludb",
        "simulated",
    }


def make_rows(method="a", seed=0, **changed):
    """Rows of a model about real records of one source and about simulated ones."""
    row = {"method": method, "seed": seed, "dim": None, "value": 0.7, "ci_low": 0.6, "ci_high": 0.8, "n": 40}
    row |= {"chance": 0.5, "above_chance": True, **changed}
    asked = [
        ("simulated:rhythm_closed", "auc"),
        ("ludb:rhythm_closed", "accuracy"),
        ("ludb:rhythm_closed", "auc"),
        ("ludb:rhythm_closed", "balanced_accuracy"),
        ("ludb:rhythm_closed", "unparsed"),
        ("ludb:rhythm_closed/AF", "auc"),
        ("ludb:qrs_duration_fill", "mean_absolute_error"),
    ]
    return [{**row, "task": task, "metric": metric} for task, metric in asked]


def test_lines_lead_with_the_main_metric():
    runs = [("a", 0), ("b", 7)]
    lines = headline_lines(make_rows() + make_rows("b", 1), runs)
    assert [(line.task, line.metric_text) for line in lines] == [
        ("ludb: rhythm (yes/no)", "balanced accuracy"),
        ("ludb: rhythm (yes/no)", "AUC"),
        ("ludb: QRS duration (fill in)", "mean absolute error"),
        ("simulated: rhythm (yes/no)", "AUC"),
    ], "balanced accuracy stands for accuracy; real records first; no classes"
    assert all(set(line.rows) == {runs[0]} for line in lines), "no row of the other"


def test_all_real_records_lead_where_they_are_scored_together():
    rows = make_rows()
    together = [row | {"task": row["task"].replace("ludb:", "real:")} for row in rows if row["task"][:4] == "ludb"]
    small = rows[1] | {"task": "real:axis_closed", "metric": "auc", "n": 19}
    main, single = main_lines(headline_lines([*rows, *together, small], [("a", 0)]))
    assert {line.source for line in main} == {"real", "simulated"}
    assert {line.source for line in single} == {"ludb"}
    assert main[0].task == "all real records: rhythm (yes/no)"
    assert not any(line.name == "axis_closed" for line in main), "fewer than 20 questions"
    assert [line.n for line in main_lines(headline_lines([small], [("a", 0)]))[0]] == [19], "nothing else is there"
    assert not main_lines(headline_lines(rows, [("a", 0)]))[1]


def test_names_are_for_readers():
    assert split_task("cinc/georgia:diagnosis_closed/AF") == ("cinc/georgia", "diagnosis_closed", "AF")
    assert split_task("rhythm") == ("", "rhythm", None)
    assert task_text("something_else") == "something else"
    assert task_text("qrs_duration_fill") == "QRS duration (fill in)"
    assert find_source("cinc/georgia").title.startswith("PhysioNet")
    assert find_source("my_hospital").licence == ""


def test_scores_are_drawn(tmp_path):
    path = tmp_path / "out" / "scores.png"
    assert plot_scores(make_rows(seed=0) + make_rows(seed=1) + make_rows("b", ci_low=None, ci_high=None), path)
    with Image.open(path) as several:
        height = several.height
    assert plot_scores(make_rows() + make_rows("b"), path, {("a", 0): "this model"})
    with Image.open(path) as one:
        assert one.height < height, "a line per model"
    path.unlink()
    assert not plot_scores(make_rows(chance=None), path)
    assert not path.exists()


def test_means_of_many_methods_are_a_line_each(tmp_path):
    """Means only, and not the gains beside them; without a mean the picture is the usual one."""
    one = {"seed": None, "task": "real:fixed", "dim": None, "metric": "mean_macro_auc", "value": 0.7, "n": 9}
    one |= {"ci_low": 0.6, "ci_high": 0.8, "chance": 0.5, "above_chance": True}
    rows = [row for i in range(12) for row in (make_rows(f"m{i}")[0], one | {"method": f"m{i}"})]
    write_report(tmp_path / "a", "many", {}, rows)
    write_report(tmp_path / "b", "many", {}, rows[: 2 * 11])
    write_report(tmp_path / "c", "many", {}, rows[::2])
    heights = []
    for name in "abc":
        with Image.open(tmp_path / name / "many.png") as picture:
            heights.append(picture.height)
    assert 0 < heights[0] - heights[1] < 40, "one line more"
    assert heights[2] != heights[0]
    assert not plot_means(rows[::2], tmp_path / "none.png")


def test_no_two_models_of_a_picture_have_one_colour(tmp_path, monkeypatch):
    drawn = {}

    def remember(figure, *args, **options):
        (axis,) = figure.axes
        drawn.update({line.get_label(): to_hex(line.get_color()) for line in axis.lines if line.get_label()[0] == "m"})

    monkeypatch.setattr(Figure, "savefig", remember)
    names = [f"m{number}" for number in range(14)]
    plot_scores([row for name in names for row in make_rows(name)], tmp_path / "scores.png")
    assert len(set(drawn.values())) == len(drawn) == len(names)
