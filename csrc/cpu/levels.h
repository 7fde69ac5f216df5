// The levels of a tile: what d = x - y and s = x + y are taken about. Included in the namespace of an
// instruction set.
//
// Rounding costs a window's variance of d about (d - level)^2 of what is rounded, and the gradient
// (d - level): much where the images are nearly equal, little where they differ. So the level of d is a
// mean in which a pixel counts by 1/d^2. A defect beside which the images are equal does not move it,
// whether it covers a hundredth of the tile or most of it; and where all pixels differ by the same, in
// brightness, it is that difference. The level of s is the mean. What is not finite does not count, so
// that a NaN stays in its windows.

template <class T>
struct Levels {
  T d, s;  // in units of data_range
};

template <class T>
class LevelSums {
  static constexpr int N = 16;
  T weight[N] = {}, weighted_d[N] = {}, s[N] = {}, count[N] = {};

 public:
  static constexpr int kPixels = N;  // of a row, that are added at once

  // mask: null, or the weight of the pixels: those of weight 0 do not count.
  void add(const T* x, const T* y, const T* mask, int pixels, T scale) {
    constexpr T kEqual = T(1e-6);  // smaller differences are all alike
    for (int i = 0; i < N; ++i) {
      const int at = i < pixels ? i : 0;
      const T d = (x[at] - y[at]) * scale, sum = (x[at] + y[at]) * scale;
      const bool counts = i < pixels && d - d == T(0) && sum - sum == T(0) && !(mask && mask[at] == T(0));
      const T w = counts ? T(1) / (d * d + kEqual * kEqual) : T(0);
      weight[i] += w;
      weighted_d[i] += counts ? w * d : T(0);
      s[i] += counts ? sum : T(0);
      count[i] += counts ? T(1) : T(0);
    }
  }
  bool empty() const { return total(count) == 0; }
  Levels<T> levels() const {
    const double by_d = total(weight), by_s = total(count);
    return {by_d > 0 ? T(total(weighted_d) / by_d) : T(0), by_s > 0 ? T(total(s) / by_s) : T(0)};
  }

 private:
  static double total(const T* lanes) {
    double sum = 0;
    for (int i = 0; i < N; ++i) sum += lanes[i];
    return sum;
  }
};

// From pieces of rows all over the tile, of pixels whose weight is not 0; of all, if there is none among
// these. The pieces begin at the points (i / g, i / g^2) modulo 1, g^3 = g + 1 (Roberts' R2 sequence, in
// units of 2^-32): evenly spread, and in step with no texture that repeats.
template <class T>
static Levels<T> levels_of(const Context<T>& c) {
  constexpr int kPixels = LevelSums<T>::kPixels;
  const Params& p = c.p;
  const Tile& t = c.tile;
  const bool weighted = p.weight.data;
  int64_t row = t.row, end_row = t.end_row, column = t.column, end_column = t.end_column;
  if (weighted) {  // the weight may lie on the loss's grid alone
    row = std::min(std::max(row, p.first_row()), p.end_row() - 1);
    end_row = std::max(std::min(end_row, p.end_row()), row + 1);
    column = std::min(std::max(column, p.first_row()), p.end_column() - 1);
    end_column = std::max(std::min(end_column, p.end_column()), column + 1);
  }
  const int64_t height = end_row - row, width = end_column - column;
  const int pixels = int(std::min<int64_t>(width, kPixels));
  const int64_t pieces = std::min<int64_t>(32, std::max<int64_t>(16, height * width / 512));
  auto sums_of = [&](bool by_weight) {
    LevelSums<T> sums;
    T x[kPixels], y[kPixels], weight[kPixels];
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t at = row + (int64_t(uint32_t(i * 3242174889)) * height >> 32);
      const int64_t from =
          column + (int64_t(uint32_t(i * 2447445414)) * (width - pixels + 1) >> 32);
      sums.add(c.row_of(p.input, at, from, pixels, x), c.row_of(p.target, at, from, pixels, y),
               by_weight ? c.row_of(p.weight, at, from, pixels, weight) : nullptr, pixels, c.scale);
    }
    return sums;
  };
  const LevelSums<T> sums = sums_of(weighted);
  return weighted && sums.empty() ? sums_of(false).levels() : sums.levels();
}
