"""The plan: names and shapes in, who gets what out. No tensor is needed."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detrex_backbones.checkpoint.match.suffixes import find_scopes, make_plan
from detrex_backbones.errors import ArgumentError
from tests.checkpoint.nets import empty, weights

A, B = (3, 4), (5,)


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def under(prefix, names):
    return {prefix + name: shape for name, shape in names.items()}


NET = {"stem.weight": A, "stem.bias": B, "res.0.weight": A, "res.0.bias": B, "res.1.weight": A}


def test_equal_names():
    plan = make_plan(NET, NET)
    assert plan.matched == {key: key for key in NET}
    assert (plan.scope, plan.mismatched, plan.missing, plan.unused, plan.outside, plan.ambiguous) == (
        "",
        {},
        [],
        [],
        [],
        "",
    )


@pytest.mark.parametrize("scope", ["backbone", "detector.backbone.bottom_up", "res", "stem", "0"])
def test_the_scope_is_found_however_deep_it_is(scope):
    plan = make_plan({**under(f"{scope}.", NET), "head.weight": A, "head.bias": B}, NET)
    assert plan.scope == f"{scope}."
    assert plan.matched == {f"{scope}.{key}": key for key in NET}
    assert plan.outside == ["head.weight", "head.bias"]
    assert (plan.missing, plan.unused, plan.ambiguous) == ([], [], "")


def test_a_part_of_a_name_is_no_suffix():
    plan = make_plan({"preconv.weight": A, "conv.weight": A}, {"conv.weight": A, "onv.weight": A})
    assert plan.matched == {"conv.weight": "conv.weight"}
    assert plan.missing == ["preconv.weight"]
    assert plan.unused == ["onv.weight"]


def test_the_longest_name_wins():
    model = {"net.block.conv.weight": A, "net.conv.weight": A}
    plan = make_plan(model, {"conv.weight": A, "block.conv.weight": A}, scope="net")
    assert plan.matched == {"net.block.conv.weight": "block.conv.weight", "net.conv.weight": "conv.weight"}


def test_names_that_stand_in_the_checkpoint_with_the_scope_before_them():
    plan = make_plan(under("backbone.", NET), under("backbone.", NET))
    assert plan.scope == ""
    assert plan.matched == {f"backbone.{key}": f"backbone.{key}" for key in NET}


def test_another_shape_is_a_mismatch_and_still_finds_the_scope():
    model = under("backbone.", NET)
    plan = make_plan(model, {**NET, "stem.weight": (9, 9)})
    assert plan.scope == "backbone."
    assert plan.mismatched == {"backbone.stem.weight": "stem.weight"}
    assert len(plan.matched) == len(NET) - 1


def test_of_two_places_the_one_with_the_right_shapes_wins():
    other = {key: (7, *shape) for key, shape in NET.items()}
    plan = make_plan({**under("depth.", other), **under("image.", NET)}, NET)
    assert plan.scope == "image."
    assert plan.ambiguous == ""


def test_the_place_with_more_names_wins_where_equally_many_fit():
    model = {"a.weight": A, "b.weight": A, "b.bias": (6,)}
    assert find_scopes(model, {"weight": A, "bias": B})[0] == ["b."]


STUDENT_AND_TEACHER = {**under("student.backbone.", NET), **under("teacher.backbone.", NET)}


def test_two_equal_places_are_ambiguous():
    assert find_scopes(STUDENT_AND_TEACHER, NET)[0] == ["student.backbone.", "teacher.backbone."]
    plan = make_plan(STUDENT_AND_TEACHER, NET)
    assert "fits equally well into 2 places of the model: 'student.backbone', 'teacher.backbone'" in plan.ambiguous
    assert "scope='student.backbone'" in plan.ambiguous


@pytest.mark.parametrize("scope", ["student", "teacher", "student.backbone", "teacher.backbone", "teacher.backbone."])
def test_two_equal_places_are_told_apart_by_scope(scope):
    plan = make_plan(STUDENT_AND_TEACHER, NET, scope=scope)
    assert plan.ambiguous == ""
    place = scope.partition(".")[0]
    assert plan.matched == {f"{place}.backbone.{key}": key for key in NET}
    assert all(not key.startswith(place) for key in plan.outside)
    assert len(plan.outside) == len(NET)


def test_a_checkpoint_with_both_places_fills_both():
    plan = make_plan(STUDENT_AND_TEACHER, STUDENT_AND_TEACHER)
    assert plan.matched == {key: key for key in STUDENT_AND_TEACHER}
    assert plan.ambiguous == ""


def test_a_key_that_ends_several_model_keys_fills_one_and_is_ambiguous():
    model = {"net.a.weight": A, "net.b.weight": A}
    plan = make_plan(model, {"weight": A}, scope="net")
    assert plan.matched == {"net.a.weight": "weight"}
    assert plan.missing == ["net.b.weight"]
    assert "its key 'weight' ends the names of 2 model keys: net.a.weight, net.b.weight" in plan.ambiguous
    assert "scope='net.a'" in plan.ambiguous


def test_a_key_that_ends_several_model_keys_belongs_to_the_one_that_it_names_in_full():
    model = {"net.conv.weight": A, "net.block.conv.weight": A}
    for scope in ("net", None):
        plan = make_plan(model, {"conv.weight": A}, scope=scope)
        if scope:
            assert plan.matched == {"net.conv.weight": "conv.weight"}
            assert plan.missing == ["net.block.conv.weight"]
            assert plan.ambiguous == ""
        else:  # each is a submodule of its own
            assert plan.ambiguous


def test_a_name_of_the_whole_model_wins_over_one_of_the_scope():
    plan = make_plan({"a.x": (1,), "a.a.x": (1,)}, {"a.x": (1,)}, scope="a")
    assert (plan.matched, plan.missing, plan.ambiguous) == ({"a.x": "a.x"}, ["a.a.x"], "")


@pytest.mark.parametrize("scope", ["backbon", "backbone.res.0.weight", "back", "student.backbone.stem", "missing"])
def test_a_scope_that_the_model_does_not_have(scope):
    model = {**under("backbone.", NET), "head.weight": A}
    with pytest.raises(ArgumentError, match=f"scope='{scope}' is no submodule") as caught:
        make_plan(model, NET, scope=scope)
    assert "At the top are: backbone, head." in str(caught.value)
    assert ("Did you mean 'backbone'" in str(caught.value)) == (scope in ("backbon", "back"))


def test_the_whole_model_as_scope():
    plan = make_plan(under("backbone.", NET), NET, scope="")
    assert plan.scope == ""
    assert plan.matched == {f"backbone.{key}": key for key in NET}


def test_nothing_fits():
    plan = make_plan(NET, {"x": A, "y": B})
    assert (plan.scope, plan.matched, plan.missing, plan.unused) == ("", {}, list(NET), ["x", "y"])
    assert make_plan({}, {}).matched == {}


def test_batch_counters_are_not_missed():
    model = {"norm.weight": B, "norm.num_batches_tracked": ()}
    assert make_plan(model, {"norm.weight": B}).missing == []
    assert make_plan(model, model).matched == {key: key for key in model}


def test_torchvisions_names_are_not_accepted_for_ours_by_suffix_accident():
    """`conv1.weight` ends `stem.conv1.weight`, and three thousand other numbers are of the same shape: 1 of 265."""
    model = shapes(empty(50))
    plan = make_plan(model, {key: tuple(value.shape) for key, value in weights("resnet50").items()})
    assert len(model) == 265
    assert len(plan.matched) <= 1


class Counting(dict):
    """Counts how often it is asked."""

    asked = 0

    def get(self, key, default=None):
        self.asked += 1
        return super().get(key, default)

    def __contains__(self, key):
        self.asked += 1
        return super().__contains__(key)

    def __getitem__(self, key):
        self.asked += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("kind", ["equal", "nested", "nothing fits", "all ambiguous"])
def test_the_work_is_linear_in_the_number_of_keys(kind):
    def asked(count):
        net = {f"stage.{index}.conv.weight": A for index in range(count)}
        model = Counting(under("detector.backbone.", net) if kind != "equal" else net)
        checkpoint = Counting({"nothing fits": under("x", net), "all ambiguous": {"conv.weight": A}}.get(kind, net))
        make_plan(model, checkpoint)
        return model.asked + checkpoint.asked

    assert asked(2000) <= 2.1 * asked(1000)
    assert asked(1000) <= 1000 * 16  # some for each dot of each name


PARTS = st.sampled_from(["a", "b", "conv", "0", "weight", "num_batches_tracked"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join)
TABLES = st.dictionaries(NAMES, st.sampled_from([(), A, B]), max_size=14)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(model=TABLES, checkpoint=TABLES, scoped=st.booleans(), data=st.data())
@example(model=STUDENT_AND_TEACHER, checkpoint=NET, scoped=False, data=None)
def test_every_key_is_in_one_place(model, checkpoint, scoped, data):
    scope = None
    heads = sorted({key.rpartition(".")[0] for key in model} - {""})
    if scoped and heads:
        scope = data.draw(st.sampled_from(heads))
    plan = make_plan(model, checkpoint, scope)

    used = [*plan.matched.values(), *plan.mismatched.values()]
    assert len(used) == len(set(used))
    assert set(used) <= set(checkpoint)
    assert set(used).isdisjoint(plan.unused)

    placed = [*plan.matched, *plan.mismatched, *plan.missing, *plan.outside]
    assert len(placed) == len(set(placed))
    counters = {key for key in model if key.endswith("num_batches_tracked")}
    assert set(placed) | counters == set(model)
    assert not counters & set(plan.missing)


@settings(max_examples=300, deadline=None)
@given(model=TABLES, checkpoint=TABLES)
def test_what_is_matched_has_the_same_ending_and_shape_inside_the_scope(model, checkpoint):
    plan = make_plan(model, checkpoint)
    for key, stored in [*plan.matched.items(), *plan.mismatched.items()]:
        assert key == stored or key.endswith("." + stored)
        assert key.startswith(plan.scope)
    assert all(model[key] == checkpoint[stored] for key, stored in plan.matched.items())
    assert all(model[key] != checkpoint[stored] for key, stored in plan.mismatched.items())
    assert not any(key.startswith(plan.scope) for key in plan.outside)


@settings(max_examples=100, deadline=None)
@given(net=TABLES.filter(bool), places=st.lists(st.sampled_from(["x", "y.z", "x.y"]), min_size=1, unique=True))
def test_a_network_that_stands_alone_in_a_model_is_found_whole(net, places):
    model = {**under(places[0] + ".", net), "another": (1, 2, 3)}
    plan = make_plan(model, net)
    # A name such as "conv.conv.weight" may fit at several depths; then it is ambiguous, or it is whole.
    assert plan.ambiguous or plan.matched == {f"{places[0]}.{key}": key for key in net}
