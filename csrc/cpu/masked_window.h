// Moments of SSIM's windows with hidden pixels, one axis after the other as in axis_window.h. v is d
// or s, m the mask; see mask.h. Included once per instruction set, inside its namespace.

template <class T, int radius>
struct MaskedWindow {
  using V = Vector<T>;
  using Window = AxisWindow<T, radius>;
  using Ring = typename Window::template Ring<4>;
  static constexpr int N = kLanes<T>;
  static constexpr int kRows = Window::kRows;
  static constexpr int kAboutOne = Window::kAboutOne;

  struct Row {
    V mean, scatter;  // scatter: the row's variance times its share
  };

  // The visible pixel that is nearest to a window's center, for windows that have none less than
  // two columns away; 0 where a window sees no pixel.
  static LAMP_NOINLINE void find_nearest(const T* d, const T* s, const T* m, V& of_d, V& of_s) {
    auto found = load(m - 1) + load(m) + load(m + 1) != V{};
    for (int k = 2; k <= radius && !all_lanes<T>(found); ++k)
      for (int at : {-k, k}) {
        const auto nearest = (load(m + at) != V{}) & ~found;
        of_d = nearest ? load(d + at) : of_d;
        of_s = nearest ? load(s + at) : of_s;
        found |= nearest;
      }
  }

  // Along x, relative to a pixel that the window sees, the nearest to its center that is visible:
  // mean = sum of g m v / share, scatter = sum of g m v^2 - share mean^2.
  // d, s (0 where hidden), m: of the windows' centers.
  LAMP_INLINE void along_x(const T* d, const T* s, const T* m, V share, const Window& g, Row& of_d,
                           Row& of_s) {
    const V center = load(m), left = load(m - 1), zero = {};
    V d0 = left != zero ? load(d - 1) : load(d + 1), s0 = left != zero ? load(s - 1) : load(s + 1);
    d0 = center != zero ? load(d) : d0;
    s0 = center != zero ? load(s) : s0;
    if (!all_lanes<T>(left + center + load(m + 1) != zero)) find_nearest(d, s, m, d0, s0);
    // A hidden center counts for nothing; a visible one is 0, unless it is NaN.
    V sum_d[2] = {center * (load(d) - d0)}, sum_s[2] = {center * (load(s) - s0)};
    V square_d[2] = {}, square_s[2] = {};
#pragma GCC unroll 8
    for (int k = 1; k <= radius; ++k)
#pragma GCC unroll 2
      for (int side = 0; side < 2;
           ++side) {  // two sums each: shorter chains of dependent additions
        const int at = side ? k : -k;
        const V gm = g[k] * load(m + at), from_d = load(d + at) - d0, from_s = load(s + at) - s0;
        const V gm_d = gm * from_d, gm_s = gm * from_s;
        sum_d[side] += gm_d;
        sum_s[side] += gm_s;
        square_d[side] += gm_d * from_d;
        square_s[side] += gm_s * from_s;
      }
    const V all_d = sum_d[0] + sum_d[1], all_s = sum_s[0] + sum_s[1];
    const V inverse = share > zero ? T(1) / share : zero;
    const V mean_d = all_d * inverse, mean_s = all_s * inverse;
    of_d = {d0 + mean_d, at_least_zero(square_d[0] + square_d[1] - mean_d * all_d)};
    of_s = {s0 + mean_s, at_least_zero(square_s[0] + square_s[1] - mean_s * all_s)};
  }

  // Writes the mean and scatter of d and s along x, at positions begin .. end - 1, to row `slot` of
  // the ring.
  static LAMP_NOINLINE void convolve(const T* d, const T* s, const T* m, const T* share, int begin,
                                     int end, const Window& window, Ring* ring, int slot) {
    const Window g = window;
    ring += begin / N;
    for (int j = begin; j < end; j += N, ++ring) {
      Ring& out = *ring;
      Row of_d, of_s;
      along_x(d + radius + j, s + radius + j, m + radius + j, load(share + j), g, of_d, of_s);
      store(out[0][slot], of_d.mean);
      store(out[1][slot], of_s.mean);
      store(out[2][slot], of_d.scatter);
      store(out[3][slot], of_s.scatter);
    }
  }

  // The rows that kRows windows see: of ring slots `slot`, with these shares.
  struct Rows {
    const T (*mean)[N], (*scatter)[N];
    const int* slot;
    const T* const* share;
  };

  // Mean and variance of kRows windows, relative to a row that all windows contain.
  // inverse: 1/(G*m) of each window. j: the first position, an index of `share` and `inverse`.
  static LAMP_NOINLINE void along_y(const Rows& rows, const T* const* inverse, int j,
                                    const Window& g, V* mean, V* var) {
    for (int q = 0; q < kRows; q += kAboutOne) {
      const V shift = load(rows.mean[rows.slot[q + kAboutOne / 2 + radius]]);
      V sum[kAboutOne] = {}, squares[kAboutOne] = {};
#pragma GCC unroll 32
      for (int t = 0; t < kAboutOne + 2 * radius; ++t) {
        const V v = load(rows.mean[rows.slot[q + t]]) - shift;
        const V weighted = load(rows.share[q + t] + j) * v;
        const V square = load(rows.scatter[rows.slot[q + t]]) + weighted * v;
#pragma GCC unroll 8
        for (int i = 0; i < kAboutOne; ++i) {
          const int k = t - i - radius;
          if (k < -radius || k > radius) continue;
          sum[i] += weighted * g[k];
          squares[i] += square * g[k];
        }
      }
      auto lossy = shift != shift;  // the windows whose variance loses too many digits
      for (int i = 0; i < kAboutOne; ++i) {
        const V normalize = load(inverse[q + i] + j), relative = sum[i] * normalize;
        mean[q + i] = relative + shift;
        var[q + i] = variance(squares[i] * normalize, relative);
        lossy |= relative * relative > kFar * var[q + i] + kRounding * shift * shift;
      }
      if (!all_lanes<T>(~lossy)) about_own_mean(rows, inverse, q, j, g, mean, var);
    }
  }

 private:
  // In some windows, little of the row that gives the shift may be visible, or nothing. The shift
  // may then be far from what they see, and the variance a small difference of large numbers. No
  // more digits are lost than without a mask while (mean - shift)^2 <= kFar variances: without one,
  // the row counts by at least the tap at distance 4, 1/28. Differences that the rounding of float32
  // explains do not count, so that flat images are not computed twice; nor does double need them.
  static constexpr T kFar = 32, kRounding = T(1e-7);

  // The same relative to each window's own mean, for the kAboutOne windows from q on. Takes twice as
  // long.
  static LAMP_NOINLINE void about_own_mean(const Rows& rows, const T* const* inverse, int q, int j,
                                           const Window& g, V* mean, V* var) {
    for (const int end = q + kAboutOne; q < end; ++q) {
      const V normalize = load(inverse[q] + j);
      V sum = {}, squares = {};
      for (int t = 0; t <= 2 * radius; ++t)
        sum += g[t - radius] * load(rows.share[q + t] + j) * load(rows.mean[rows.slot[q + t]]);
      mean[q] = sum * normalize;
      for (int t = 0; t <= 2 * radius; ++t) {
        const V v = load(rows.mean[rows.slot[q + t]]) - mean[q];
        squares += g[t - radius] *
                   (load(rows.scatter[rows.slot[q + t]]) + load(rows.share[q + t] + j) * v * v);
      }
      var[q] = squares * normalize;
    }
  }
};
