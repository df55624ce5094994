"""The table of classes, and its picture."""

from __future__ import annotations

from regard.tasks.confusion import draw_confusion, tag_details


def test_tags_are_counted_by_kind(tmp_path):
    truth, answer = [["B-A", "I-A", "O", "B-B"]], [["B-A", "O", "O", "B-B"]]
    found = tag_details(answer, truth, ["B-A", "B-B", "I-A", "O"])
    assert [(row["label"], row["f1"], row["count"]) for row in found["per_class"]] == [
        ("A", 0.0, 1),
        ("B", 1.0, 1),
    ]
    assert found["confusion"] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert draw_confusion(tmp_path / "c.png", found["confusion"], found["labels"])
    many = [[0] * 99 for _ in range(99)]
    assert not draw_confusion(tmp_path / "d.png", many, [str(i) for i in range(99)])
    assert not (tmp_path / "d.png").exists()
