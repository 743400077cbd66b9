"""A pickle becomes data: nothing is imported, called or hashed that isn't plain, and each byte costs about the same."""

import argparse
import builtins
import json
import pickle
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from detrex_backbones import load_checkpoint
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.read import pickle_data
from detrex_backbones.checkpoint.read.pickle_data import parse_pickle
from detrex_backbones.checkpoint.read.rebuild import rebuild
from detrex_backbones.checkpoint.read.records import Call, Name, PickleError
from detrex_backbones.errors import CheckpointFileError
from detrex_backbones.text import visible
from tests.checkpoint.nets import arrays, small_state

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data):
    """What a pickle holds, without storages."""
    return rebuild(parse_pickle(data)[0], lambda saved: pytest.fail("no storage"))


def instructions(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


PLAIN = {
    "numbers": [0, 1, -1, 255, 256, 65535, 65536, 2**31, -(2**31), 2**63, -(2**63), 10**30, -(10**30)],
    "floats": [0.0, -0.0, 1.5, float("inf"), float("-inf"), 1e-300],
    "constants": [None, True, False, (), [], {}],
    "texts": ["", "a", "\u00fc\u4e2d\U0001f600", "x" * 300, "y" * 70_000, "line\nline", "\\u0041", "'\""],
    "bytes": [b"", b"\x00\xff", bytes(range(256)), b"z" * 70_000],
    "tuples": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((),)],
    "sets": [{1, 2}, frozenset({"a"}), set(), frozenset()],
    "dicts": [{"a": 1, 2: "b", None: 3, 1.5: 4, b"c": 5, (1, "a"): 6}, OrderedDict(a=1, b=2)],
    "others": [complex(1, 2), torch.Size([1, 2]), torch.float16, torch.device("cpu"), torch.uint16],
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_of_every_protocol(name, protocol):
    for value in PLAIN[name]:
        data = pickle.dumps(value, protocol)
        found, end = parse_pickle(data + b"more")
        assert end == len(data)
        found = read(data)
        assert found == value and type(found) is type(value), value
        assert repr(found) == repr(value)  # -0.0, and 1 for True


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_one_thing_stays_one(protocol):
    shared = [1, 2]
    value = {"a": shared, "b": (shared, shared), "text": "t" * 5000, "bytes": b"b" * 9000}
    value["again"], value["self"] = value["bytes"], value
    found = read(pickle.dumps(value, protocol))
    assert found["a"] is found["b"][0] is found["b"][1] and found["a"] == shared
    assert found["self"] is found and found["again"] == value["bytes"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_list_that_holds_itself_in_a_tuple(protocol):
    value = [1]
    value.append((value, {"again": value}))
    found = read(pickle.dumps(value, protocol))
    assert found[1][1]["again"] is found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_classes_stay_records_that_can_be_shown(protocol):
    beside = argparse.Namespace(lr=0.1, names=["a"])
    found = read(pickle.dumps([beside, ValueError("text")], protocol))
    assert isinstance(found[0], Call) and isinstance(found[0].function, Name)
    assert repr(found[0]) != "<a call>" and repr(found[1]).endswith("ValueError>(...)")


@pytest.mark.parametrize(
    "name",
    """os system/posix system/builtins eval/builtins getattr/builtins __import__/__builtin__ eval/torch load
    torch serialization.os.system/torch._utils sys.modules/numpy load/numpy.dtypes X/collections namedtuple
    functools partial/codecs decode/antigravity fly""".replace("\n    ", "/").split("/"),
)
def test_names_are_never_imported(monkeypatch, name):
    module, attribute = name.split()
    program = b"\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(attribute)]) + attribute.encode()
    monkeypatch.setattr(builtins, "__import__", lambda *args, **kwargs: pytest.fail(f"imported {args[0]}"))
    for body in (b"c" + f"{module}\n{attribute}\n".encode(), program + b"\x93"):
        found = parse_pickle(instructions(body))[0]
        assert isinstance(found, Name) and repr(found) == f"<{module}.{attribute}>"
        called = parse_pickle(instructions(body + b"(K\x01tR"))[0]
        assert isinstance(called, Call) and called.arguments == (1,)


@pytest.mark.parametrize("end", [0, 1, 2, 10, -1])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_cut_pickle(end, protocol):
    data = pickle.dumps({"a": [1, 2], "b": b"x" * 300, "c": "y" * 300}, protocol)
    with pytest.raises(PickleError, match="cut"):
        parse_pickle(data[:end])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickle_cut_anywhere(protocol):
    data = pickle.dumps({"a": [1, 2.5, None], "b": b"x", "c": ("y", {1})}, protocol)
    for end in range(len(data)):
        with pytest.raises(PickleError):
            parse_pickle(data[:end])


REFUSED = {
    "extension": b"\x82\x07",
    "extension of two bytes": b"\x83\x07\x00",
    "extension of four": b"\x84\x07\x00\x00\x00",
    "buffer elsewhere": b"\x97",
    "read-only buffer": b"N\x98",
    "no instruction": b"\xff",
    "string of -1 bytes": b"T\xff\xff\xff\xff",
    "number of -16 bytes": b"\x8b\xf0\xff\xff\xff",
    "number of 601 bytes": b"\x8b\x59\x02\x00\x00" + bytes(601),
    "number of 601 digits": b"I" + b"1" * 601 + b"\n",
    "number of no digits": b"I\n",
    "float of 601 digits": b"F" + b"1" * 601 + b"\n",
    "float of none": b"Fx\n",
    "string without quotes": b"Sabc\n",
    "string in letters": b"Saba\n",
    "string of one quote": b"S'\n",
    "string in two kinds of quotes": b"S'abc\"\n",
    "bytes past the end": b"\x8e" + b"\xff" * 8 + b"abc",
    "text past the end": b"\x8d" + b"\xff" * 7 + b"\x7f",
    "line without end": b"cos",
    "memo that isn't there": b"h\x63",
    "memo of -1": b"Np-1\n",
    "memo of many digits": b"Np" + b"0" * 50 + b"1\n",
    "no mark": b"Nt",
    "empty stack": b"0",
    "key without value": b"}(K\x01u",
    "append to a tuple": b")Na",
    "append to a number": b"K\x01Na",
    "item of a list": b"]NNs",
    "state of a list": b"]}b",
    "state of a name": b"cos\nsystem\n}b",
    "state of a dtype's name": b"ctorch\nfloat32\n}b",
    "state twice": b"ca\nb\n)R}b}b",
    "name of numbers": b"K\x01K\x02\x93",
    "name in a module that is a number": b"K\x01\x8c\x01a\x93",
    "name that is a number": b"\x8c\x01aK\x01\x93",
    "state of nothing": b"}b",
    "frame past the end": b"\x95" + b"\xff" * 8,
    "not UTF-8 in a name": b"c\xff\n\xff\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_instructions_that_no_checkpoint_needs(name):
    with pytest.raises(PickleError, match=r"^the pickle "):
        parse_pickle(instructions(REFUSED[name]))


def test_a_string_may_be_empty():
    assert parse_pickle(instructions(b"S''\n"))[0] == ""


def test_odd_but_right_instructions():
    assert read(b"\x80\x02N0K\x012\x86.") == (1, 1)  # POP, DUP
    assert read(b"(K\x01K\x02(K\x031t.") == (1, 2)  # POP_MARK
    assert read(b"I01\nI00\n\x86.") == (True, False)
    assert read(b"L12L\n.") == 12
    assert read(b"V\\u00fc\n.") == "\u00fc"
    assert read(b"S'\\x41'\n.") == "A"
    assert read(b"(dI1\nI2\ns.") == {1: 2}
    assert repr(read(b"(ia\nb\n.")) == repr(read(b"(ca\nb\no.")) == "<a.b>(...)"


# ------------------------------------------------------------------------------------------------ costs


def peak_of(function):
    """Bytes of memory that a function takes at most, and what it raised."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    except (PickleError, MemoryError):
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


TEXT = b"X\xe8\x03\x00\x00" + b"t" * 1000 + b"q\x05"
BOMBS = {
    "tuples that hold one another twice": b")q\x05" + b"h\x05h\x05\x86q\x05" * 3000,
    "lists of a text": TEXT + b"0]" + b"cbuiltins\nlist\nq\x060" + b"h\x06h\x05\x85Ra" * 3000,
    "tuples of a list": b"](" + b"N" * 1000 + b"eq\x050" + b"]cbuiltins\ntuple\nq\x060" + b"h\x06h\x05\x85Ra" * 3000,
    "sets of one list": b"](" + b"N" * 1000 + b"eq\x050" + b"]cbuiltins\nset\nq\x060" + b"h\x06h\x05\x85Ra" * 3000,
    "a list of a list of a list": b"cbuiltins\nlist\nq\x060](" + b"N" * 1000 + b"eq\x07" + b"h\x06h\x07\x85Rq\x07" * 90,
    "dicts of one dict": b"}(" + b"".join(b"M" + i.to_bytes(2, "little") + b"N" for i in range(1000)) + b"uq\x050"
    + b"]ccollections\nOrderedDict\nq\x060" + b"h\x06h\x05\x85Ra" * 3000,
    "bytes of one text": TEXT + b"0]" + b"c_codecs\nencode\nq\x060X\x06\x00\x00\x00latin1q\x070"
    + b"h\x06h\x05h\x07\x86Ra" * 3000,
    "defaultdicts that make one another": b"ccollections\ndefaultdict\nq\x060" + b"h\x06)Rq\x07"
    + b"h\x06h\x07\x85Rq\x07" * 3000,
    "lists": b"(" + b"]" * 50_000 + b"l",
    "dicts": b"(" + b"}" * 50_000 + b"l",
    "sets": b"(" + b"\x8f" * 50_000 + b"l",
    "frames": b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f" * 5000 + b"N",
    "marks": b"(" * 50_000 + b"N",
    "duplicates": b"N" + b"2" * 50_000,
    "memo": b"N" + b"".join(b"r" + (i * 65_537).to_bytes(4, "little") for i in range(10_000)),
}  # fmt: skip


@pytest.mark.few(2)
@pytest.mark.parametrize("name", BOMBS)
def test_memory_is_in_proportion_to_the_file(name):
    data = instructions(BOMBS[name])
    if name not in ("lists", "dicts", "sets"):
        assert peak_of(lambda: read(data)) < 64 * len(data) + 100_000
    # An instruction of one byte that makes a container is the most expensive one: see the limit of a million.
    assert peak_of(lambda: read(data)) < 700 * len(data) + 100_000


@pytest.mark.slow
def test_a_large_checkpoint_has_room_for_its_records():
    call = b"cm\nf\nq\x00(" + b"h\x00(K\x01(tX\x50\x00\x00\x00" + b"n" * 80 + b"}tR"
    one = b"h\x00(K\x01(tX\x50\x00\x00\x00" + b"n" * 80 + b"}tR"  # a hundred bytes, four records
    value, _ = parse_pickle(b"\x80\x02" + call + one * 260_000 + b"l.")
    assert len(value) == 260_001


def test_more_records_than_any_checkpoint_has(monkeypatch):
    monkeypatch.setattr(pickle_data, "RECORDS", 1000)
    monkeypatch.setattr(pickle_data, "RECORD_BYTES", 1 << 20)
    for code in (b"]", b"}", b"\x8f", b"N\x85", b"NN\x86", b"NNN\x87", b"(t", b"(l", b"(d", b"(\x91", b"h\x00)R",
                 b"h\x00)\x81", b"h\x00)}\x92", b"(ia\nb\n", b"(h\x00o"):  # fmt: skip
        body = b"ca\nb\nq\x00(" + code * 998
        if b"}\x92" not in code:
            parse_pickle(instructions(body + b"l"))
        with pytest.raises(PickleError, match="more than 1,000 lists, dicts, tuples and calls"):
            parse_pickle(instructions(body + code * 2 + b"l"))


@pytest.mark.parametrize("body", [b"]" * 102 + b"a" * 101, b")" + b"\x85" * 102, b"N" + b"\x85" * 50_000])
def test_containers_in_one_another(body):
    assert read(instructions(b"]" * 101 + b"a" * 100)) is not None
    with pytest.raises(PickleError, match="more than 100 nested containers"):
        read(instructions(body))


class Counted(int):
    """A number that counts how often it is compared: those of equal hashes are compared with one another."""

    compared = 0
    __hash__ = int.__hash__

    def __eq__(self, other):
        Counted.compared += 1
        return int.__eq__(self, other)


def counted_long(run, at):
    """The instruction of such numbers, which makes those that count."""
    start, end = run.piece(at, 1)
    return Counted(int.from_bytes(run.data[start:end], "little")), end


@pytest.mark.parametrize("shape", ["keys", "items of a set", "pairs"])
def test_numbers_with_equal_hashes_are_not_compared_with_one_another(monkeypatch, shape):
    """20,000 keys of one hash took eight seconds: each was compared with each."""
    count, prime = 4000, (1 << 61) - 1
    numbers = [(index + 10) * prime for index in range(count)]
    assert len({hash(number) for number in numbers}) == 1
    readers = [counted_long if code == 0x8A else reader for code, reader in enumerate(pickle_data.READERS)]
    monkeypatch.setattr(pickle_data, "READERS", readers)
    program = b"".join(b"\x8a\x0a" + number.to_bytes(10, "little") + b"N" for number in numbers)
    items = b"".join(b"\x8a\x0a" + number.to_bytes(10, "little") for number in numbers)
    body = {
        "keys": b"}(" + program + b"u",
        "items of a set": b"\x8f(" + items + b"\x90",
        "pairs": b"(" + program + b"d",
    }
    Counted.compared = 0
    found = read(instructions(body[shape]))
    assert len(found) == count
    assert Counted.compared < 300 * count  # of all with all it would be 8,000,000


def test_tuples_as_keys_are_few(tmp_path):
    content = {(index, "a"): index for index in range(3000)}
    found = read(pickle.dumps(content))
    assert sum(isinstance(key, tuple) for key in found) == 1000 and len(found) == 3000
    assert found[(5, "a")] == 5 and found["<key 1001: tuple>"] == 1000


def test_keys_that_are_containers_get_names():
    found = read(instructions(b"}(" + b"]K\x01" + b"}K\x02" + b"NK\x03" + b"u"))
    assert found == {"<key 1: list>": 1, "<key 2: dict>": 2, None: 3}


SURROGATES = [b"V\\ud800conv.weight\n", b"X\x03\x00\x00\x00\xed\xa0\x80", b"\x8c\x03\xed\xa0\x80", b"V\\udfff\n"]


@pytest.mark.parametrize("key", SURROGATES)
def test_half_a_character_in_a_key_breaks_no_report(tmp_path, key):
    path = tmp_path / "weights.pkl"
    named = {"weight": _text("weight"), "bias": _text("bias"), "other": key}
    content = b"".join(named[name] + _array(count) for name, count in (("weight", 2), ("bias", 1), ("other", 5)))
    path.write_bytes(b"\x80\x02}(" + content + b"u.")
    model = nn.Linear(2, 1)
    model.weight = nn.Parameter(torch.zeros(2))
    model.bias = nn.Parameter(torch.zeros(1))
    report = load_checkpoint(model, path, allow_unused=["*"])
    assert len(report.loaded) == 2
    str(report).encode()
    json.dumps(report.to_dict()).encode()
    for value in read_checkpoint(path).tensors:
        assert visible(value).encode()


def _text(word):
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def _array(count):
    """Instructions that make an array of so many numbers."""
    return pickle.dumps(np.ones(count, "float32"), protocol=2)[2:-1]


@pytest.mark.slow
def test_whole_files_with_bombs_are_errors_of_ours(tmp_path):
    path = tmp_path / "weights.pkl"
    for body in BOMBS.values():
        path.write_bytes(instructions(body))
        with pytest.raises(CheckpointFileError):
            read_checkpoint(path)


@pytest.mark.parametrize("where", [b"numpy\ndtype\n", b"x\ny\n"])
def test_nothing_that_holds_itself_twice_is_shown_or_followed_for_ever(where):
    """The repr of forty tuples that hold one another twice is a text of 10^12 characters."""
    bomb = b"Nq\x05" + b"h\x05h\x05\x86q\x05" * 60
    named = b"(cnumpy\nndarray\nK\x00\x85U\x01btR"
    programs = [
        bomb + b"0cnumpy.core.multiarray\n_reconstruct\n" + named + b"(K\x01)c" + where + b"h\x05\x85R\x89U\x00tb",
        bomb + b"0c_codecs\nencode\n(U\x01xh\x05tR",
        bomb + b"0ctorch._tensor\n_rebuild_from_type_v2\n(NH\x05)Nt".replace(b"H", b"h") + b"R",
        bomb + b"0ctorch\ndevice\nh\x05\x85R",
        bomb + b"0h\x05)R",
    ]
    for program in programs:
        try:
            text = repr(read(instructions(program)))
        except PickleError as error:
            text = str(error)
        assert len(text) < 1000


def test_small_states_are_as_they_were():
    assert set(read(pickle.dumps(arrays(small_state())))) == set(small_state())
