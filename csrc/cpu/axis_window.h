// SSIM's window along one axis of planes and volumes. Included once per instruction set, inside its
// namespace.
//
// A window's variance is the mean of the variances of its rows plus the variance of their means,
// and so on from axis to axis: along x about the window's center pixel, along y and z about a row
// or plane that it sees. No difference of large, nearly equal numbers is ever formed.

template <class T, int radius>
class AxisWindow {
  using V = Vector<T>;
  static constexpr int N = kLanes<T>;

 public:
  static constexpr int kRows = LAMP_ROWS;           // windows per step, which share loads
  static constexpr int kRing = kRows + 2 * radius;  // the rows that these see
  // How many windows share one shift, a row that all of them see.
  static constexpr int kAboutOne = std::min(kRows, radius >= 4 ? 8 : radius >= 2 ? 4 : 2);

  // A ring buffer of rows (or planes): kRing of them, and one more that stands for all rows beyond
  // the border. What a step reads for one vector of columns is contiguous.
  template <int planes>
  using Ring = T[planes][kRing + 1][N];

  explicit AxisWindow(const double* taps) {
    for (int k = 0; k <= radius; ++k) tap[k] = T(taps[k]);
  }

  // The tap at a distance from the center.
  T operator[](int k) const { return tap[k < 0 ? -k : k]; }

  // Mean and variance of d and s along x, for the windows centered on the N pixels from d and s on.
  // The taps are symmetric, so tap g_k multiplies the sum of the two values k columns to the left
  // and right. g: a local copy of this window, so that the compiler knows that no store changes it.
  LAMP_INLINE void moments_along_x(const AxisWindow& g, const T* d, const T* s, Ring<4>& out,
                                   int slot) {
    const V d0 = load(d), s0 = load(s);
    V mean_d = {}, mean_s = {}, square_d = {}, square_s = {};  // relative to d0 and s0
#pragma GCC unroll 8
    for (int k = 1; k <= radius; ++k) {
      const V da = load(d - k) - d0, db = load(d + k) - d0;
      const V sa = load(s - k) - s0, sb = load(s + k) - s0;
      mean_d += g[k] * (da + db);
      mean_s += g[k] * (sa + sb);
      square_d += g[k] * (da * da + db * db);
      square_s += g[k] * (sa * sa + sb * sb);
    }
    store(out[0][slot], d0 + mean_d);
    store(out[1][slot], s0 + mean_s);
    store(out[2][slot], variance(square_d, mean_d));
    store(out[3][slot], variance(square_s, mean_s));
  }

  // Mean and variance of kRows windows along y or z, from those of the kRing rows they see.
  LAMP_NOINLINE void moments(const T (*means)[N], const T (*variances)[N], const int* slot, V* mean,
                             V* var) const {
    const AxisWindow g = *this;
    for (int q = 0; q < kRows; q += kAboutOne) {
      const V shift = load(means[slot[q + kAboutOne / 2 + radius]]);
      V sum[kAboutOne] = {}, squares[kAboutOne] = {};
#pragma GCC unroll 32
      for (int t = 0; t < kAboutOne + 2 * radius; ++t) {
        const V v = load(means[slot[q + t]]) - shift;
        const V square = load(variances[slot[q + t]]) + v * v;
#pragma GCC unroll 8
        for (int i = 0; i < kAboutOne; ++i) {
          const int k = t - i - radius;
          if (k < -radius || k > radius) continue;
          sum[i] += v * g[k];
          squares[i] += square * g[k];
        }
      }
      for (int i = 0; i < kAboutOne; ++i) {
        mean[q + i] = sum[i] + shift;
        var[q + i] = variance(squares[i], sum[i]);
      }
    }
  }

  // Sums of kRows windows along y or z.
  LAMP_NOINLINE void sums(const T (*ring)[N], const int* slot, V* out) const {
    const AxisWindow g = *this;
    V sum[kRows] = {};
#pragma GCC unroll 32
    for (int t = 0; t < kRing; ++t) {
      const V v = load(ring[slot[t]]);
#pragma GCC unroll 8
      for (int q = 0; q < kRows; ++q) {
        const int k = t - q - radius;
        if (k >= -radius && k <= radius) sum[q] += v * g[k];
      }
    }
    for (int q = 0; q < kRows; ++q) out[q] = sum[q];
  }

  // Sums along x, for the N windows whose first pixels are at `in`.
  LAMP_INLINE V sum_along_x(const AxisWindow& g, const T* in) {
    V v[(2 * radius + N - 1) / N + 1];
    for (int i = 0; i <= (2 * radius + N - 1) / N; ++i) v[i] = load(in + i * N);
    return symmetric(g, v, std::make_integer_sequence<int, radius>());
  }

 private:
  T tap[radius + 1];  // by distance from the center

  template <int... m>
  LAMP_INLINE V symmetric(const AxisWindow& g, const V* v, std::integer_sequence<int, m...>) {
    V sum = g[0] * at_offset<T, radius>(v);
    ((sum += g[m + 1] * (at_offset<T, radius - m - 1>(v) + at_offset<T, radius + m + 1>(v))), ...);
    return sum;
  }
};
