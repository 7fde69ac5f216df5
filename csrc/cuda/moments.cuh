// The moments of d and s in the windows of a thread.
//
// Squares about a shift far from a window's pixels cost its variance digits, and where light lies beside
// dark the tile's shift of s is far from both. So a thread has a shift of its own above that. When rows
// come that are far from it, the shift moves to them, and with it what is summed up.
//
// At an edge along y, windows of both sides are under way. A window that sees much of both sides has a
// large variance, and misses no digits. To any other window the shift must be near. So the shift stays
// until the next window that ends sees at least 1/200 of the new side. The windows beyond the edge have
// not seen much by then, unless sigma is small for the window: an edge between 0 and 1 costs a partial 1e-6
// where sigma is at least a tenth of the window, and up to 2e-4 where it is less.
#pragma once

#include "terms.cuh"

namespace lamp_kernels::cuda {

// G* of d, s, d^2 and s^2, about the shifts.
template <class T>
struct PowerMeans {
  T d, s, d2, s2;
};

// G_x of these at column `c` of a thread. Symmetric taps: tap k meets the sum of what lies
// k to both sides.
template <int radius, int columns, class T>
LAMP_DEVICE PowerMeans<T> along_x(const Seen<radius, columns, Pixel<T>>& seen, int c,
                                  const T* tap) {
  const Pixel<T> centre = seen.at[c + radius];
  PowerMeans<T> m;
  m.d = tap[0] * centre.d;
  m.s = tap[0] * centre.s;
  m.d2 = m.d * centre.d;
  m.s2 = m.s * centre.s;
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

// The sums under way of means and squares about a shift, which moves up `by`.
template <int radius, class T, class Sums>
LAMP_DEVICE void raise_level(Sums& mean, Sums& square, T by, const T* tap) {
  T seen = 0;  // the taps of the rows that a window has seen
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
  static constexpr bool kFollows = sizeof(T) == 4;  // float64 has digits to spare

  Sums sums_[4 * columns];
  T level_ = 0;          // of s
  T by_ = 0;             // how far above it the last row lies, if that is to be followed
  int far_rows_ = 0;     // the last rows, all far from it
  bool follow_ = false;  // whether a thread of this warp is to follow

 public:
  // The sums take the place that `shared` points to, if they lie there.
  LAMP_DEVICE void clear(T*& shared) {
    LAMP_UNROLL
    for (int k = 0; k < 4 * columns; ++k) sums_[k].clear(shared);
  }

  // A row of pixels for all windows that see it. Of those that end there `moments`, about the tile's
  // shifts.
  LAMP_DEVICE void push_row(const Pixel<T>* row, const SsimArguments<T>& a, Moments<T>* moments) {
    const T* const tap = a.tap;
    const Row seen = about_level(row);
    LAMP_UNROLL
    for (int c = 0; c < columns; ++c) {
      const PowerMeans<T> m = along_x<radius>(seen, c, tap);
      // The other column's window is one pixel on: if that sees an edge that this one does not, its
      // variance is large.
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
      moments[c] = {mean_d, mean_s + level_, variance(square_d, mean_d),
                    variance(square_s, mean_s)};
    }
  }

  // Whether a thread of the warp is to follow the last rows. Its threads leave their loop of rows
  // together: a branch in it would part what can run side by side.
  LAMP_DEVICE bool must_follow() const { return kFollows && follow_; }
  // `row`: as it was pushed.
  LAMP_DEVICE void follow(const Pixel<T>* row, const T* tap) {
    level_ += by_;
    const Row seen = about_level(row);
    LAMP_UNROLL
    for (int c = 0; c < columns; ++c) {
      Sums &mean = sums_[4 * c + 1], &square = sums_[4 * c + 3];
      raise_level<radius>(mean, square, by_, tap);
      // Of a window that begins with this row, the row may be more than 1/200: it is taken about the
      // new shift.
      const PowerMeans<T> m = along_x<radius>(seen, c, tap);
      mean[2 * radius - 1] = tap[radius] * m.s;
      square[2 * radius - 1] = tap[radius] * m.s2;
    }
    follow_ = false;
  }

 private:
  LAMP_DEVICE Row about_level(const Pixel<T>* row) const {
    Row seen(row);
    LAMP_UNROLL
    for (Pixel<T>& pixel : seen.at) pixel.s -= level_;
    return seen;
  }
  // If variance/2 + c2 < mean^2/256. Else rounding costs that sum at most some 5e-6 of it.
  LAMP_DEVICE static bool is_far(const PowerMeans<T>& m, T c2) {
    constexpr T kMost = T(1) / 256;
    return (T(0.5) + kMost) * (m.s * m.s) - T(0.5) * m.s2 > c2;
  }
};

}  // namespace lamp_kernels::cuda
