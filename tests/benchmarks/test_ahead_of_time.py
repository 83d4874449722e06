"""Programs for devices that are not there: what their text says, and that the small network's compiles."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import hlo
from benchmarks.ahead_of_time import RATES, STORED, compile_apart, needed, next_try, row, table
from benchmarks.least import least_of_maps

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


@pytest.mark.parametrize("part", ["slice(%sum), slice={[0:2], [0:8]}", "fusion(%sum), kind=kLoop, calls=%fused"])
def test_a_part_of_an_array_is_read_and_not_all_of_it(part):
    """Such as the gradient of one weight in the buffer of those that were reduced together."""
    text = TEXT.replace("  ROOT %out", f"  %wrapped_slice.7 = f32[2,8]{{1,0}} {part}\n  ROOT %out")
    more, less = (hlo.work_of(hlo.step_of(hlo.computations(each))).moved for each in (text, TEXT))
    assert more - less == 2 * 64


TPU = """HloModule jit_call

ENTRY %main (a: f32[4,8]) -> f32[4,8] {
  %a = f32[4,8]{1,0:T(8,128)} parameter(0)
  %copy-start.1 = (f32[4,8]{1,0:T(8,128)S(1)}, f32[4,8]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done.1 = f32[4,8]{1,0:T(8,128)S(1)} copy-done(%copy-start.1)
  %slice-start.1 = ((f32[4,8]{1,0:T(8,128)}), f32[2,8]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%a), slice={}
  %slice-done.1 = f32[2,8]{1,0:T(8,128)S(1)} slice-done(%slice-start.1)
  ROOT %sum = f32[4,8]{1,0:T(8,128)} fusion(%copy-done.1, %slice-done.1), kind=kOutput, calls=%fused
}
"""


def test_what_stays_on_a_tpus_chip_is_not_moved_and_a_prefetch_is_counted_once():
    """The array and a half of it are read into the chip's memory; the sum alone is written to the main one."""
    assert hlo.work_of(hlo.step_of(hlo.computations(TPU))).moved == 128 + 64 + 128
    assert hlo.size_of("(f32[2]{0:T(128)}, bf16[3]{0:T(128)S(1)})", on_chip=False) == 8


def test_sizes_are_those_of_all_shapes_in_a_tuple():
    assert hlo.size_of("(f32[2,3]{1,0}, /*index=5*/bf16[7]{0}, pred[])") == 24 + 14 + 1


def line(**more):
    known = {"target": "h100x1", "devices": 1, "preset": "synthetic", "kind": "base", "dtype": "bfloat16", "batch": 64}
    known |= {"compile_s": 10.0, "arguments": 10**9, "temporaries": 10**9, "aliased": 5, "to_alias": 5}
    work = {"operations": 1e9, "moved": 335 * 10**7, "collectives": 2, "collective_bytes": 3 * 10**6, "copies": 0}
    return known | work | {"float64": 0, "host_calls": 0} | more


def test_the_bound_is_the_larger_of_both_and_what_should_not_be_is_named():
    assert "| 2.0 | 3.4 |  | 1.0 | 64000 | 2, 3.0 MB |  |" in row(line())
    assert "| 2000.0 | 32 |" in row(line(operations=2 * RATES["h100"]["bfloat16"]))
    assert "| 3.4 | 1.34 | 1.0" in row(line(least=25 * 10**8))
    assert "not all of the state taken over; 3 float64" in row(line(aliased=4, float64=3))
    assert "no: it is Tuesday" in row({**line(), "reason": "it is Tuesday"})
    assert table([line()]).startswith("**Compiled, never run.**")
    assert needed(line()) == 2e9


def convolve(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_least_is_what_a_block_reads_and_writes_by_hand():
    def block(params, images):
        first = jax.nn.relu(convolve(images, params[0]))  # the map that is needed again
        return first + jax.jit(convolve)(first, params[1])

    shapes = [jax.ShapeDtypeStruct((3, 3, c, 8), jnp.float32) for c in (2, 8)]
    images = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.bfloat16)
    program = jax.make_jaxpr(block)([shape.update(dtype=jnp.bfloat16) for shape in shapes], images)
    image, maps = 4 * 4 * 2 * 2, 4 * 4 * 8 * 2
    forth = (image + maps) + 2 * maps + maps  # two convolutions, the shortcut
    back = (image + maps) + 2 * maps + 2 * maps + maps + maps  # by both kernels, by the map; its ReLU; the shortcut
    assert least_of_maps(program, [True, True, False]) == forth + back
    # Nothing goes back through what is frozen, nor to what lies below it.
    assert least_of_maps(program, [False, True, False]) == forth + 2 * maps
    assert least_of_maps(program, [False, False, False]) == forth


def test_least_of_a_strided_kernel_of_one_is_a_quarter_of_the_reading():
    shapes = jax.ShapeDtypeStruct((1, 1, 2, 4), jnp.float32), jax.ShapeDtypeStruct((1, 8, 8, 2), jnp.float32)
    program = jax.make_jaxpr(lambda kernel, x: convolve(x, kernel, 2))(*shapes)
    assert least_of_maps(program, [False, False]) == 8 * 8 * 2 * 4 / 4 + 4 * 4 * 4 * 4


@pytest.mark.parametrize("most", [1, 3, 4, 5, 31, 100, 1000])
def test_the_largest_batch_is_found_to_a_sixteenth_in_a_few_tries(most):
    memory, of = 1000.0, lambda count: 1000.0 * (count + 0.5 * count**0.9) / (most + 0.5 * most**0.9 + 0.1)
    known, fits, fails, count = {}, 0, 0, 4
    while not fails or fails - fits > max(1, fits // 16):
        assert fits < count < (fails or 10**9)
        known[count] = of(count)
        fits, fails = (count, fails) if known[count] <= memory else (fits, count)
        count = next_try(known, memory, fits, fails)
    assert fits <= most < fails
    assert len(known) <= 8


def test_the_step_of_the_paper_moves_at_most_1_3_times_what_it_must():
    lines = [json.loads(line) for line in STORED.read_text().splitlines()]
    ours = [line for line in lines if line["preset"] == "paper-resnet50" and line["target"] == "h100x1"]
    ratios = {(line["kind"], line["dtype"]): line["moved"] / line["least"] for line in ours if line["kind"] != "embed"}
    assert len(ratios) == 6
    assert max(ratios.values()) < 1.3


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
