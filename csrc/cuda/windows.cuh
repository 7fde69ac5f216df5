// The separable window: along x over a row in shared memory, along y over running sums.
//
// The pass along y needs no neighboring threads. For each plane and column, a thread keeps running
// sums of the 2 radius windows that are still open, that is, have seen only some of their rows, and
// adds each new row to all of them (the transposed form of an FIR filter). So only the pass along x
// goes through shared memory.
#pragma once

#include <type_traits>

#include "rows.cuh"

namespace lamp_kernels::cuda {

// The running sums of the open windows along y, for one plane of one column.
template <class T, int radius>
struct SumsInRegisters {
  T sum[2 * radius];
  LAMP_DEVICE T& operator[](int k) { return sum[k]; }

  LAMP_DEVICE void clear(T*&) {
    LAMP_UNROLL
    for (int i = 0; i < 2 * radius; ++i) sum[i] = 0;
  }
};
template <class T, int radius>
struct SumsInShared {
  T* sum;
  LAMP_DEVICE T& operator[](int k) { return sum[k * blockDim.x]; }

  // Claims the shared memory that `shared` points to, and advances the pointer.
  LAMP_DEVICE void clear(T*& shared) {
    sum = shared;
    shared += 2 * radius * blockDim.x;
    for (int i = 0; i < 2 * radius; ++i) (*this)[i] = 0;
  }
};

// Adds a new row's value `v` to all windows along y that see it. Returns the sum of the window that
// is complete with this row. `sum[k]` belongs to the window centered radius - k rows above the next
// row.
template <int radius, class T, class Sums>
LAMP_DEVICE T push(Sums& sum, T v, const T* tap) {
  const T done = sum[0] + tap[radius] * v;
  auto move = [&](int k) {
    const int distance = radius - 1 - k;
    sum[k] = sum[k + 1] + tap[distance < 0 ? -distance : distance] * v;
  };
  if constexpr (std::is_same_v<Sums, SumsInRegisters<T, radius>>) {
    LAMP_UNROLL
    for (int k = 0; k < 2 * radius - 1; ++k) move(k);
  } else {
    LAMP_ROLLED  // unrolled, it would load all sums ahead, into as many registers
    for (int k = 0; k < 2 * radius - 1; ++k) move(k);
  }
  sum[2 * radius - 1] = tap[radius] * v;
  return done;
}

// Adjacent columns that a thread loads or stores with one vector instruction.
template <class Element, int columns>
struct alignas(columns * sizeof(Element)) Adjacent {
  Element at[columns];
};

// The elements that the windows of this thread's columns see, loaded from a row in shared memory.
template <int radius, int columns, class Element>
struct Seen {
  static constexpr int kReach = 2 * radius + columns;
  static_assert(2 * radius % columns == 0, "a thread's first column is aligned for vectors");
  Element at[kReach];

  LAMP_DEVICE explicit Seen(const Element* row) {
    const auto* const from = reinterpret_cast<const Adjacent<Element, columns>*>(row) + threadIdx.x;
    LAMP_UNROLL
    for (int i = 0; i < kReach / columns; ++i) {
      const Adjacent<Element, columns> some = from[i];
      LAMP_UNROLL
      for (int c = 0; c < columns; ++c) at[i * columns + c] = some.at[c];
    }
  }
};

// Applies G_x^T to one plane of h; at(k) is its value `k` columns from here.
template <int radius, class T, class At>
LAMP_DEVICE T adjoint_along_x(At at, const T* tap) {
  T sum = tap[0] * at(0);
  LAMP_UNROLL
  for (int k = 1; k <= radius; ++k) sum += tap[k] * (at(-k) + at(k));
  return sum;
}

}  // namespace lamp_kernels::cuda
