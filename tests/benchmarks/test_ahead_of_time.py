"""Programs for devices that are not there: what their text says, and that the small network's compiles."""

import importlib.util

import pytest

from benchmarks import hlo
from benchmarks.ahead_of_time import RATES, compile_apart, needed, row, table

TEXT = """HloModule jit_call, input_output_alias={ {0}: (0, {}, may-alias) }

%body (p: (s32[], f32[4,8], u8[100,2])) -> (s32[], f32[4,8], u8[100,2]) {
  %p = (s32[], f32[4,8]{1,0}, u8[100,2]{1,0}) parameter(0)
  %n = s32[] get-tuple-element(%p), index=0
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %store = u8[100,2]{1,0} get-tuple-element(%p), index=2
  %batch = bf16[4,2]{1,0} fusion(%store, %n), kind=kLoop, calls=%fused
  %sum = f32[4,8]{1,0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
  %turned = f32[8,4]{0,1} copy(%sum), metadata={op_name="a(b), %nothing"}
  ROOT %out = (s32[], f32[4,8]{1,0}, u8[100,2]{1,0}) tuple(%n, %sum, %store)
}

ENTRY %main (a: f32[4,8]) -> f32[4,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %loop = (s32[], f32[4,8]{1,0}, u8[100,2]{1,0}) while(%a), condition=%cond, body=%body
  ROOT %r = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_bytes_collectives_and_copies_are_those_of_the_step():
    found = hlo.computations(TEXT)
    assert {name: len(lines) for name, lines in found.items()} == {"body": 8, "main": 3}
    work = hlo.work_of(hlo.step_of(found), ignored=200)
    # The batch (16 bytes) from the store, which is left out, and a number (4); a sum and a copy, read and written.
    assert work == hlo.Work(moved=20 + 2 * 128 + 2 * 128, collectives=1, collective_bytes=128, copies=1)
    assert hlo.work_of(hlo.step_of(found)).moved == work.moved + 200


def test_sizes_are_those_of_all_shapes_in_a_tuple():
    assert hlo.size_of("(f32[2,3]{1,0}, /*index=5*/bf16[7]{0}, pred[])") == 24 + 14 + 1


def line(**more):
    known = {"target": "h100x1", "devices": 1, "preset": "synthetic", "kind": "base", "dtype": "bfloat16", "batch": 64}
    known |= {"compile_s": 10.0, "arguments": 10**9, "temporaries": 10**9, "aliased": 5, "to_alias": 5}
    work = {"operations": 1e9, "moved": 335 * 10**7, "collectives": 2, "collective_bytes": 3 * 10**6, "copies": 0}
    return known | work | {"float64": 0, "host_calls": 0} | more


def test_the_bound_is_the_larger_of_both_and_what_should_not_be_is_named():
    assert "| 2.0 | 3.4 | 1.0 | 64000 | 2, 3.0 MB |  |" in row(line())
    assert "| 2000.0 | 32 |" in row(line(operations=2 * RATES["h100"]["bfloat16"]))
    assert "not all of the state taken over; 3 float64" in row(line(aliased=4, float64=3))
    assert "no: it is Tuesday" in row({**line(), "reason": "it is Tuesday"})
    assert table([line()]).startswith("**Compiled, never run.**")
    assert needed(line()) == 2e9


def compiles(target, devices):
    found = compile_apart({"target": target, "preset": "synthetic", "kind": "base", "dtype": "bfloat16", "batch": 64})
    assert "reason" not in found, found["reason"]
    assert (found["devices"], found["float64"], found["host_calls"]) == (devices, 0, 0)
    assert found["aliased"] >= found["to_alias"] > 0
    assert found["moved"] > found["temporaries"] > 0
    return found


@pytest.mark.skipif(importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs the CUDA plugin: '.[ahead]'")
def test_the_small_network_compiles_for_an_h100():
    assert compiles("h100x1", 1)["collectives"] == 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu: '.[ahead]'")
def test_the_small_network_compiles_for_four_chips_of_a_v5e():
    assert compiles("v5e:2x2", 4)["collectives"] > 0
