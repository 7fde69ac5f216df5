// The kernel for one instruction set. Each kernel_*.cpp includes it inside its own namespace, after
// defining
//   LAMP_VECTOR_BYTES   the size of a vector
//   LAMP_ROWS           how many rows SSIM computes in one step
// The includer includes all standard headers beforehand, so that none of their inline functions is
// compiled for an instruction set that the machine may not support.

#include "vectors.h"

#include "../formulas.h"

#include "rows.h"

#include "pixels.h"

#include "centering.h"

#include "axis_window.h"

#include "mask.h"

#include "masked_window.h"

#include "ssim.h"

#include "gms.h"

#include "cosine.h"

#include "volume_centering.h"

#include "volume.h"

template <class Kernel, class T>
static void run_kernel(const Context<T>& c, double* sums) {
  using Workspace = typename Kernel::Workspace;
  Kernel(c, *static_cast<Workspace*>(workspace(Scratch::tile, sizeof(Workspace)))).run(sums);
}

template <class T, int radius, int gradients>
static void run_tile(const Context<T>& c, double* sums) {
  if constexpr (radius == 0) {
    auto& rows = *static_cast<PixelRows<T>*>(workspace(Scratch::tile, sizeof(PixelRows<T>)));
    pixel_tile<T, gradients>(c, rows, sums);
  } else {
    run_kernel<SsimTile<T, radius, gradients>>(c, sums);
  }
}

template <class T, int gradients>
static void run_tile(const Context<T>& c, double* sums) {
  if (c.p.gms()) return run_kernel<GmsTile<T, gradients>>(c, sums);
  switch (c.p.ssim() ? c.p.radius : 0) {
    case 0: return run_tile<T, 0, gradients>(c, sums);
    case 1: return run_tile<T, 1, gradients>(c, sums);
    case 2: return run_tile<T, 2, gradients>(c, sums);
    case 3: return run_tile<T, 3, gradients>(c, sums);
    case 4: return run_tile<T, 4, gradients>(c, sums);
    case 5: return run_tile<T, 5, gradients>(c, sums);
    case 6: return run_tile<T, 6, gradients>(c, sums);
    case 7: return run_tile<T, 7, gradients>(c, sums);
  }
}

template <class T>
static void run_typed(const Params& p, const Tiling& tiling, int gradients, int64_t begin,
                      int64_t end, double* partial) {
  const int terms = p.terms.count();
  const bool masked = p.mask.data && p.ssim();
  const int64_t bytes = masked ? MaskTile<T>::bytes(p, tiling) : 0;
  MaskTile<T> mask(p, tiling, masked ? workspace(Scratch::mask, bytes) : nullptr);
  for (int64_t k = begin; k < end; ++k) {
    const int64_t i = masked ? tiling.channels_together(k) : k;
    Context<T> c(p, tiling.tile(i));
    if (masked) {
      mask.compute(c, gradients ? p.radius : 0);
      c.mask = &mask;
    }
    double* sums = partial + i * terms;
    for (int k = 0; k < terms; ++k) sums[k] = 0;
    if (gradients == 0) run_tile<T, 0>(c, sums);
    if (gradients == 1) run_tile<T, 1>(c, sums);
    if (gradients == 2) run_tile<T, 2>(c, sums);
  }
}

void run_tiles(const Params& p, const Tiling& tiling, bool use_double, int gradients, int64_t begin,
               int64_t end, double* partial) {
  if (use_double)
    run_typed<double>(p, tiling, gradients, begin, end, partial);
  else
    run_typed<float>(p, tiling, gradients, begin, end, partial);
}

template <class T, int gradients>
static void run_cosine_tile(const CosineParams& c, const Tile& tile, double& sum) {
  using Kernel = CosineTile<T, gradients>;
  using Workspace = typename Kernel::Workspace;
  Kernel(c, tile, *static_cast<Workspace*>(workspace(Scratch::tile, sizeof(Workspace)))).run(sum);
}

template <class T>
static void run_cosine_typed(const CosineParams& c, int gradients, int64_t begin, int64_t end,
                             double* partial) {
  for (int64_t i = begin; i < end; ++i) {
    const Tile tile = c.tile(i);
    partial[i] = 0;
    if (gradients == 0) run_cosine_tile<T, 0>(c, tile, partial[i]);
    if (gradients == 1) run_cosine_tile<T, 1>(c, tile, partial[i]);
    if (gradients == 2) run_cosine_tile<T, 2>(c, tile, partial[i]);
  }
}

void run_cosine(const CosineParams& c, bool use_double, int gradients, int64_t begin, int64_t end,
                double* partial) {
  if (use_double)
    run_cosine_typed<double>(c, gradients, begin, end, partial);
  else
    run_cosine_typed<float>(c, gradients, begin, end, partial);
}

template <class T, int radius, int gradients>
static void run_box(const Volume& v, const Box& box, double* sums) {
  using Kernel = SsimVolume<T, radius, gradients>;
  using Workspace = typename Kernel::Workspace;
  Kernel(v, box, *static_cast<Workspace*>(workspace(Scratch::tile, sizeof(Workspace)))).run(sums);
}

template <class T, int gradients>
static void run_box(const Volume& v, const Box& box, double* sums) {
  switch (v.plane.radius) {
    case 1: return run_box<T, 1, gradients>(v, box, sums);
    case 2: return run_box<T, 2, gradients>(v, box, sums);
    case 3: return run_box<T, 3, gradients>(v, box, sums);
    case 4: return run_box<T, 4, gradients>(v, box, sums);
    case 5: return run_box<T, 5, gradients>(v, box, sums);
    case 6: return run_box<T, 6, gradients>(v, box, sums);
    case 7: return run_box<T, 7, gradients>(v, box, sums);
  }
}

template <class T>
static void run_boxes_typed(const Volume& v, const VolumeTiling& tiling, int gradients,
                            int64_t begin, int64_t end, double* partial) {
  const int terms = v.plane.terms.count();
  for (int64_t i = begin; i < end; ++i) {
    const Box box = tiling.box(i);
    double* sums = partial + i * terms;
    for (int k = 0; k < terms; ++k) sums[k] = 0;
    if (gradients == 0) run_box<T, 0>(v, box, sums);
    if (gradients == 1) run_box<T, 1>(v, box, sums);
    if (gradients == 2) run_box<T, 2>(v, box, sums);
  }
}

void run_boxes(const Volume& v, const VolumeTiling& tiling, bool use_double, int gradients,
               int64_t begin, int64_t end, double* partial) {
  if (use_double)
    run_boxes_typed<double>(v, tiling, gradients, begin, end, partial);
  else
    run_boxes_typed<float>(v, tiling, gradients, begin, end, partial);
}
