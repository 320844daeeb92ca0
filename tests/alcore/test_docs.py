"""The examples of docs/alcore.md run as they stand, and the names it gives exist."""

import re
from importlib import import_module
from pathlib import Path

import alcore

PAGE = (Path(__file__).parents[2] / "docs" / "alcore.md").read_text()


def test_the_examples_run_from_top_to_bottom(capsys):
    examples = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(examples) >= 5
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "docs/alcore.md", "exec"), names)  # the page is ours
    said = capsys.readouterr().out
    assert "predictions" in said
    assert "frobenius" in said
    assert "torch.Size([60, 60]) torch.Size([6, 3])" in said


def test_every_criterion_in_the_table_exists():
    named = re.findall(r"^\| (.*?) \|", PAGE, flags=re.MULTILINE)
    found = 0
    for cell in named:
        paths = re.findall(r"`([\w.]+)`", cell)
        for path in paths:
            if "acquisition." not in path and "alcore." not in path:
                continue
            module, _, name = path.removeprefix("alcore.").rpartition(".")
            assert hasattr(import_module(f"alcore.{module}" if module else "alcore"), name), path
            found += 1
    assert found >= 9


def test_the_public_names_are_there_and_few():
    assert all(hasattr(alcore, name) for name in alcore.__all__)
    assert len(alcore.__all__) < 20
