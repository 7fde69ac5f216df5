"""The integer arithmetic with which a block finds its tile."""

import subprocess

import host_build as build

# A rounding error of the factor would show at numbers next to a multiple of the divisor.
PROGRAM = r"""
#include <cstdio>
#include <random>

#include "cuda/tiling.h"

using lamp_kernels::cuda::Divisor;

long wrong = 0, checked = 0;

void check(uint32_t divisor, uint64_t number) {
  if (number >= uint64_t(1) << 31) return;
  ++checked;
  wrong += Divisor(divisor).quotient(uint32_t(number)) != number / divisor;
}

int main() {
  std::mt19937 random(0);
  auto check_all = [&](uint32_t divisor) {
    const uint64_t any = random() >> 1;
    for (uint64_t number : {uint64_t(0), uint64_t(1), (uint64_t(1) << 31) - 1, any})
      check(divisor, number);
    const uint64_t most = (uint64_t(1) << 31) / divisor;
    for (uint64_t times : {uint64_t(1), uint64_t(random() % most + 1), most})
      for (int by : {-1, 0, 1}) check(divisor, times * divisor + by);
  };
  for (uint32_t divisor = 1; divisor < 20000; ++divisor) check_all(divisor);
  for (int power = 14; power < 31; ++power)
    for (int by = -50; by <= 50; ++by) check_all((1u << power) + by);
  for (int i = 0; i < 20000; ++i) check_all(random() % ((1u << 31) - 1) + 1);
  std::printf("%ld of %ld\n", wrong, checked);
}
"""


def test_divisor_agrees_with_integer_division(tmp_path, cuda_flags):
    """For numbers and divisors below 2^31."""
    source, program = tmp_path / "divisor.cpp", tmp_path / "divisor"
    source.write_text(PROGRAM)
    include = f"-I{build.ROOT / 'csrc'}"
    subprocess.run(
        ["g++", "-std=c++20", "-O1", include, *cuda_flags, str(source), "-o", str(program)],
        check=True,
    )
    told = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    wrong, checked = told.split(" of ")
    assert int(checked) > 400_000
    assert int(wrong) == 0
