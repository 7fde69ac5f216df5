// Windows: along x from a row in shared memory, along y as sums under way.
//
// Windows along y need no neighbours: a thread keeps for each plane of its columns the 2 radius
// sums of windows that are under way, and a new row goes to all of them (the transposed form of a
// filter). So x alone goes through shared memory.
#pragma once

#include <type_traits>

#include "rows.cuh"

namespace lamp_kernels::cuda {

// The sums of the windows along y that are under way, of one plane of one column.
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

  // Takes the place that `shared` points to.
  LAMP_DEVICE void clear(T*& shared) {
    sum = shared;
    shared += 2 * radius * blockDim.x;
    for (int i = 0; i < 2 * radius; ++i) (*this)[i] = 0;
  }
};

// A new row's value `v` for all windows along y that see it. Returns what the one that ends there
// has seen: `sum[k]` is the window centred radius - k rows above the row to come.
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
    LAMP_ROLLED  // else as many registers are taken to load all of them ahead
    for (int k = 0; k < 2 * radius - 1; ++k) move(k);
  }
  sum[2 * radius - 1] = tap[radius] * v;
  return done;
}

// What a thread reads and writes at once: neighbouring columns, in one instruction.
template <class Element, int columns>
struct alignas(columns * sizeof(Element)) Adjacent {
  Element at[columns];
};

// The elements that the windows of this thread's columns see, from a row in shared memory.
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

// G_x^T of one plane of h, whose value `k` columns from here is at(k).
template <int radius, class T, class At>
LAMP_DEVICE T adjoint_along_x(At at, const T* tap) {
  T sum = tap[0] * at(0);
  LAMP_UNROLL
  for (int k = 1; k <= radius; ++k) sum += tap[k] * (at(-k) + at(k));
  return sum;
}

}  // namespace lamp_kernels::cuda
