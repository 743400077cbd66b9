"""The Python blocks of the page about detectron2 and detrex, in the order in which they stand."""

import re

from tests.interop.theirs import EXAMPLES, link_configs, need_detectron2

PAGE = EXAMPLES.parent / "docs" / "detectron2-and-detrex.md"


def test_blocks_run_and_print_what_they_say(monkeypatch, capsys):
    link_configs(monkeypatch, detectron2=need_detectron2())
    names = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    assert len(blocks) == 2
    shapes = names["fpn"].output_shape()
    assert {name: (shape.channels, shape.stride) for name, shape in shapes.items()} == {
        f"p{level}": (256, 2**level) for level in range(3, 8)
    }
    printed = capsys.readouterr().out
    assert re.search(r"model\.backbone\.in_features: \['res3', 'res4', 'res5'\] -> \['p1', 'p2', 'p3'\]", printed)
