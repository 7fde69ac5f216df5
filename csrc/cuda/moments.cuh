// The moments of d and s in a thread's windows.
//
// If a shift is far from a window's pixels, cancellation costs its variance digits. Where light
// meets dark, the tile's shift of s is far from both. So each thread adds its own shift of s to the
// tile's. When it encounters rows that are far from this shift, it moves the shift to them, and
// adjusts the running sums.
//
// At an edge along y, windows centered on both sides are open. A window that sees much of both
// sides has a large variance and does not need the lost digits. For every other window, the shift
// must be near its pixels. So the shift stays until the next window to complete sees at least 1/200
// of the new side. The windows beyond the edge have not seen much by then, unless sigma is small
// for the window: an edge between 0 and 1 costs a few 1e-6 if sigma is at least a tenth of the
// window, and up to 2e-4 if it is less.
#pragma once

#include "terms.cuh"

namespace lamp_kernels::cuda {

// Windowed means of d, s, d^2 and s^2, with the shifts subtracted from d and s.
template <class T>
struct PowerMeans {
  T d, s, d2, s2;
};

// Applies G_x to these, at column `c` of a thread. The taps are symmetric, so tap k multiplies the
// sum of the two values k columns to the left and right.
template <int radius, int columns, class T>
LAMP_DEVICE PowerMeans<T> along_x(const Seen<radius, columns, Pixel<T>>& seen, int c,
                                  const T* tap) {
  const Pixel<T> center = seen.at[c + radius];
  PowerMeans<T> m;
  m.d = tap[0] * center.d;
  m.s = tap[0] * center.s;
  m.d2 = m.d * center.d;
  m.s2 = m.s * center.s;
  LAMP_UNROLL
  for (int k = 1; k <= radius; ++k) {
    const Pixel<T> one = seen.at[c + radius - k], other = seen.at[c + radius + k];
    m.d += tap[k] * (one.d + other.d);
    m.s += tap[k] * (one.s + other.s);
    m.d2 += tap[k] * (one.d * one.d + other.d * other.d);
    m.s2 += tap[k] * (one.s * one.s + other.s * other.s);
  }
  return m;
}

// Adjusts the running sums of means and squares about a shift when that shift increases by `by`.
template <int radius, class T, class Sums>
LAMP_DEVICE void raise_shift(Sums& mean, Sums& square, T by, const T* tap) {
  T seen = 0;  // sum of the taps of the rows that window k has seen
  LAMP_UNROLL
  for (int k = 2 * radius - 1; k >= 0; --k) {
    const int distance = k - (radius - 1);
    seen += tap[distance < 0 ? -distance : distance];
    const T before = mean[k];
    mean[k] = before - by * seen;
    square[k] -= by * (before + mean[k]);
  }
}

template <class T, int radius, int columns, class Sums>
class MomentWindows {
  using Row = Seen<radius, columns, Pixel<T>>;
  static constexpr bool kFollows = sizeof(T) == 4;  // float64 has precision to spare

  Sums sums_[4 * columns];
  T shift_ = 0;          // of s, relative to the tile's
  T by_ = 0;             // distance from there to the last row, if the shift is to follow it
  int far_rows_ = 0;     // how many of the last rows in sequence were far from it
  bool follow_ = false;  // whether any thread of this warp is to follow

 public:
  // Sums in shared memory claim the memory that `shared` points to, and advance it.
  LAMP_DEVICE void clear(T*& shared) {
    LAMP_UNROLL
    for (int k = 0; k < 4 * columns; ++k) sums_[k].clear(shared);
  }

  // Adds a row of pixels to all windows that see it. Returns the `moments` of the windows that are
  // complete with this row, relative to the tile's shifts.
  LAMP_DEVICE void push_row(const Pixel<T>* row, const SsimArguments<T>& a, Moments<T>* moments) {
    const T* const tap = a.tap;
    const Row seen = about_shift(row);
    LAMP_UNROLL
    for (int c = 0; c < columns; ++c) {
      const PowerMeans<T> m = along_x<radius>(seen, c, tap);
      // Column 0 decides for both. The other column's window is one pixel further: if it sees an
      // edge that this one does not, its variance is large, and it needs no nearer shift.
      if (kFollows && c == 0) {
        far_rows_ = is_far(m, a.constants.c2) ? far_rows_ + 1 : 0;
        const bool follow = far_rows_ >= a.rows_to_follow;
        by_ = follow ? m.s : T(0);
        follow_ = __any_sync(0xffffffffu, follow);
      }
      Sums* const sums = sums_ + 4 * c;
      const T mean_d = push<radius>(sums[0], m.d, tap), mean_s = push<radius>(sums[1], m.s, tap);
      const T square_d = push<radius>(sums[2], m.d2, tap);
      const T square_s = push<radius>(sums[3], m.s2, tap);
      moments[c] = {mean_d, mean_s + shift_, variance(square_d, mean_d),
                    variance(square_s, mean_s)};
    }
  }

  // Whether any thread of the warp is to follow the last rows, by vote. All its threads leave the
  // row loop together: a branch inside the loop would keep the compiler from overlapping
  // instructions.
  LAMP_DEVICE bool must_follow() const { return kFollows && follow_; }
  // Moves the shift. `row`: the row pushed last.
  LAMP_DEVICE void follow(const Pixel<T>* row, const T* tap) {
    shift_ += by_;
    const Row seen = about_shift(row);
    LAMP_UNROLL
    for (int c = 0; c < columns; ++c) {
      Sums &mean = sums_[4 * c + 1], &square = sums_[4 * c + 3];
      raise_shift<radius>(mean, square, by_, tap);
      // For the window that begins with this row, the row may weigh more than 1/200: recompute its
      // sums about the new shift.
      const PowerMeans<T> m = along_x<radius>(seen, c, tap);
      mean[2 * radius - 1] = tap[radius] * m.s;
      square[2 * radius - 1] = tap[radius] * m.s2;
    }
    follow_ = false;
  }

 private:
  LAMP_DEVICE Row about_shift(const Pixel<T>* row) const {
    Row seen(row);
    LAMP_UNROLL
    for (Pixel<T>& pixel : seen.at) pixel.s -= shift_;
    return seen;
  }
  // Whether variance/2 + c2 < mean^2/256. If not, rounding changes the left side by at most about
  // 5e-6 of its value.
  LAMP_DEVICE static bool is_far(const PowerMeans<T>& m, T c2) {
    constexpr T kMost = T(1) / 256;
    return (T(0.5) + kMost) * (m.s * m.s) - T(0.5) * m.s2 > c2;
  }
};

}  // namespace lamp_kernels::cuda
