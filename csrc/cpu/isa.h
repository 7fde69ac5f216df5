// Run-time selection of the kernel compiled for the best instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../params.h"
#include "cosine_params.h"
#include "tiling.h"
#include "volume_tiling.h"

namespace lamp_kernels {

// Computes tiles begin .. end - 1, and writes the sums of tile i's terms to partial[i * terms] and
// the elements after it. `gradients`: 0 for values only, 1 for the input's gradient, 2 for both.
// `use_double`: computes in float64, else in float32.
using RunTiles = void (*)(const Params&, const Tiling&, bool use_double, int gradients,
                          int64_t begin, int64_t end, double* partial);
// The same for boxes of volumes.
using RunBoxes = void (*)(const Volume&, const VolumeTiling&, bool use_double, int gradients,
                          int64_t begin, int64_t end, double* partial);

// The same for the cosine loss, with one sum per tile.
using RunCosine = void (*)(const CosineParams&, bool use_double, int gradients, int64_t begin,
                           int64_t end, double* partial);

struct Isa {
  const char* name;
  RunTiles run;
  RunBoxes run_boxes;
  RunCosine run_cosine;
};

// The best instruction set that this machine supports, or the one named by the environment variable
// LAMP_KERNELS_CPU_ISA. Throws std::runtime_error if the machine does not support that one. The
// choice is made at the first call.
const Isa& isa();

// Per-thread scratch memory, aligned for every vector type: two blocks, of which each keeps its
// contents until it is requested in a greater size. Freed when the thread ends.
enum class Scratch : int { tile, mask };
void* workspace(Scratch block, std::size_t bytes);

}  // namespace lamp_kernels
