// The kernel as compiled for each instruction set, and the choice among them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../params.h"
#include "tiling.h"

namespace lamp_kernels {

// Computes tiles begin .. end - 1 and writes the sums of tile i's terms to
// partial[i * terms], ... `gradients`: 0 for values only, 1 for the input's, 2 for both.
// `use_double`: computes in float64, else in float32.
using RunTiles = void (*)(const Params&, const Tiling&, bool use_double, int gradients,
                          int64_t begin, int64_t end, double* partial);

struct Isa {
  const char* name;
  RunTiles run;
};

// The best that this machine has, or the one named by the environment variable
// LAMP_KERNELS_CPU_ISA; throws std::runtime_error where it names none that this machine has.
// Decided at the first call.
const Isa& isa();

// Memory of this thread, aligned for every vector; it stays until the thread ends.
void* workspace(std::size_t bytes);

}  // namespace lamp_kernels
