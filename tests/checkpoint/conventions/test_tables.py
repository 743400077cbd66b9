"""Every table there and back: a source's own name comes out again, and no two names become one."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detrex_backbones.checkpoint.names.conventions import conventions, sources
from detrex_backbones.checkpoint.names.conventions._names import LEAVES, Names, Pair

TABLES = [convention for convention in conventions().values() if convention.pairs and not convention.one_way]

# What a source writes: primary names. From 2 on, so that no general row meets a row of its own for the first block.
NUMBERS = st.integers(2, 40)


def rank_of(pair, name):
    """Of a tensor that the pair is for: a convolution's weight has four dimensions, unless the pair says otherwise."""
    if pair.rank is not None:
        return pair.rank
    return 4 if name.endswith((".weight", "_w")) and "{leaf}" not in pair.theirs else 1


@st.composite
def names(draw, convention):
    pair = draw(st.sampled_from([pair for pair in convention.pairs if pair.theirs]))
    numbers = {found[1]: draw(NUMBERS) for found in re.finditer(r"\{(\w+?)([+-]\d+)?\}", pair.theirs)}
    leaf = draw(st.sampled_from(LEAVES))

    def fill(part):
        return leaf if part[1] == "leaf" else str(numbers[part[1]] + int(part[2] or 0))

    name = re.sub(r"\{(\w+?)([+-]\d+)?\}", fill, pair.theirs)
    return name, rank_of(pair, name)


@pytest.mark.parametrize("convention", TABLES, ids=lambda convention: convention.name)
def test_there_and_back(convention):
    @settings(max_examples=150, deadline=None)
    @given(names(convention))
    def check(drawn):
        name, rank = drawn
        ours = convention.read(name, rank)
        assert ours is not None
        assert convention.write(ours, rank) == name

    check()


@pytest.mark.few(3)
@pytest.mark.parametrize("convention", TABLES, ids=lambda convention: convention.name)
def test_no_two_names_become_one(convention):
    @settings(max_examples=30, deadline=None)
    @given(st.sets(names(convention), min_size=10, max_size=40))
    def check(drawn):
        read = [convention.read(name, rank) for name, rank in drawn]
        assert len(set(read)) == len({name for name, _ in drawn})

    check()


def test_name_that_is_only_read():
    table = Names([Pair("", "head.{leaf}", also=("old_head.{leaf}",))])
    assert table.read("old_head.weight", 2) == "head.weight"
    assert table.read("", 2) is None and table.write("head.weight", 2) is None


def test_first_stage_of_mmpretrain_counts_its_shortcut_from_0():
    table = conventions()["mmpretrain"]
    for name, rank, ours in [
        ("layer1.0.downsample.0.weight", 4, "res2.0.shortcut.weight"),
        ("layer1.0.downsample.1.weight", 1, "res2.0.shortcut.norm.weight"),
        ("layer2.0.downsample.1.weight", 4, "res3.0.shortcut.weight"),
        ("layer2.0.downsample.2.weight", 1, "res3.0.shortcut.norm.weight"),
    ]:
        assert table.read(name, rank) == ours
        assert table.write(ours, rank) == name


def test_every_alias_stands_for_conventions():
    assert set(conventions()) <= set(sources())
    for alias, found in sources().items():
        assert found and set(found) <= set(conventions()), alias
    # The source itself comes before those that share its names.
    assert sources()["gluon"][0] == "gluon" and "torchvision" in sources()["gluon"]
