// What SSIM needs of the mask in one tile, computed once for all channels that share the mask.
// Included once per instruction set, inside its namespace.
//
// With a mask m, a window takes the mean G*(m v)/G*m. The window is separable, so this is done in
// two steps: `share` is the window's sum of m along x, by which the moments of a row are divided,
// and G*m is the window's sum of the shares along y. Divisions are slow, so the reciprocals are
// kept.
//
// The mask of ones must cost no bit, and where it is 1 it should cost little time: the kernel treats
// windows without hidden pixels as if there were no mask. They are found in blocks, one vector of
// positions wide.

template <class T>
class MaskTile {
  using V = Vector<T>;
  static constexpr int N = kLanes<T>;
  static constexpr int kBlocks = int(ceil_div(Tiling::kWidest + 4 * kMaxRadius, int64_t(N))) + 1;
  static constexpr int kColumns = kBlocks * N;

  // A row of the image. The columns of `root` are those of the pixels that windows see, the others'
  // are window positions.
  struct Row {
    alignas(64) T root[kColumns];           // the square root of m
    alignas(64) T share[kColumns];          // of the window along x; 0 where it sees nothing
    alignas(64) T inverse_share[kColumns];  // 0 where the share is
    alignas(64) T inverse[kColumns];        // 1/(G*m), 0 where G*m is
    // How many rows, down to this one, have windows without a hidden pixel, and hidden centers.
    int full_rows[kBlocks], hidden_rows[kBlocks];
    bool gap[kBlocks], empty[kBlocks];  // whether some shares are 0, or all
  };

 public:
  static int64_t bytes(const Params& p, const Tiling& tiling) {
    return (tiling.band_height + 4 * p.radius + 1) * int64_t(sizeof(Row));
  }

  // memory: `bytes` of it, aligned to 64.
  MaskTile(const Params& params, void* memory)
      : p(params), outside(static_cast<Row*>(memory)), rows(outside + 1) {
    for (int k = 0; k <= p.radius; ++k) tap[k] = T(p.taps[k]);
  }

  // Computes the rows that the losses of a tile see, and of the `reach` rows above and below it.
  void compute(const Context<T>& c, int reach) {
    const Tile& t = c.tile;
    const int64_t of = t.image * p.mask.batch + t.channel * p.mask.channel;
    if (of == mask && t.row == row && t.column == column) return;
    mask = of, row = t.row, column = t.column;
    std::fill(outside->share, outside->share + kColumns, T(0));
    std::fill(outside->inverse, outside->inverse + kColumns, T(0));
    std::fill(outside->gap, outside->gap + kBlocks, true);
    const int64_t first = std::max(p.first_row(), t.row - reach);
    const int64_t end = std::min(p.end_row(), t.end_row + reach);
    top = std::max<int64_t>(0, first - p.radius);
    const int64_t bottom = std::min(p.height, end + p.radius);
    blocks = int(ceil_div(c.columns + 2 * p.radius, N));
    for (int64_t at = top; at < bottom; ++at) {
      read(c, at);
      shares(at);
    }
    for (int64_t at = first; at < end; ++at) invert(at);
  }

  const T* root(int64_t at) const { return of(at).root; }
  const T* share(int64_t at) const { return of(at).share; }
  const T* inverse_share(int64_t at) const { return of(at).inverse_share; }
  const T* inverse(int64_t at) const { return of(at).inverse; }
  // The image row that windows see as row `at`, or -1 if they see nothing there.
  int64_t seen_as(int64_t at) const {
    if (at >= 0 && at < p.height) return at;
    if (p.border != Border::reflect) return -1;
    return at < 0 ? -at : 2 * (p.height - 1) - at;
  }
  // What the windows at positions j .. j + N - 1 see of the pixels of row `at`.
  enum class Sight { all, some, none };
  Sight sight(int64_t at, int j) const {
    const Row& r = of(at);
    return r.full_rows[j / N] ? Sight::all : r.empty[j / N] ? Sight::none : Sight::some;
  }
  // Whether these windows, in rows `at` .. `at` + count - 1, all have hidden centers.
  bool is_hidden(int64_t at, int count, int j) const {
    return of(at + count - 1).hidden_rows[j / N] >= count;
  }
  // Whether they have no hidden pixel.
  bool is_full(int64_t at, int count, int j) const {
    const int64_t above = at - p.radius, below = at + count - 1 + p.radius;
    if (p.border == Border::zeros && (above < 0 || below >= p.height)) return false;
    const int64_t first = std::max<int64_t>(above, 0), last = std::min(below, p.height - 1);
    return of(last).full_rows[j / N] > last - first;
  }
  // Whether a window at positions j .. j + N - 1 sees no pixel of row `at`.
  bool has_gap(int64_t at, int j) const { return of(seen_as(at)).gap[j / N]; }

 private:
  const Params& p;
  T tap[kMaxRadius + 1];
  Row *const outside, *const rows;           // the first stands for all rows beyond the border
  int64_t mask = -1, row = -1, column = -1;  // which tile this is
  int64_t top = 0;                           // the image row of rows[0]
  int blocks = 0;

  const Row& of(int64_t at) const { return at < 0 ? *outside : rows[at - top]; }

  // Reads m into `root`, and fills in what lies beyond the border.
  void read(const Context<T>& c, int64_t at) {
    T* const m = rows[at - top].root;
    const int64_t start = c.tile.column - 2 * p.radius;  // image column of the first pixel
    const int64_t seen = start + c.columns + 4 * p.radius;
    const int64_t low = std::max<int64_t>(start, 0), high = std::min(seen, p.width);
    const T beyond = p.border == Border::zeros ? T(0) : T(1);
    std::fill(m, m + (low - start), beyond);
    c.read(p.mask, at, low, high - low, m + (low - start));
    std::fill(m + (high - start), m + (seen - start), beyond);
    std::fill(m + (seen - start), m + kColumns, T(1));
    if (p.border != Border::reflect) return;
    for (int64_t i = start; i < 0; ++i) m[i - start] = m[std::min(-i, p.width - 1) - start];
    for (int64_t i = p.width; i < seen; ++i)
      m[i - start] = m[std::max<int64_t>(2 * (p.width - 1) - i, 0) - start];
  }

  // Computes a row's shares from m in `root`, and then the root.
  LAMP_NOINLINE void shares(int64_t at) {
    Row& r = rows[at - top];
    const int radius = p.radius;
    const V zero = {}, one = zero + T(1);
    for (int b = 0; b < blocks; ++b) {
      const T* const m = r.root + b * N;  // of the leftmost pixels that the windows see
      auto ones = load(m) == one;
      for (int k = N; k < 2 * radius; k += N) ones &= load(m + k) == one;
      ones &= load(m + 2 * radius) == one;
      const bool full = all_lanes<T>(ones);
      r.full_rows[b] = !full ? 0 : at == top ? 1 : rows[at - top - 1].full_rows[b] + 1;
      const bool hidden = !full && all_lanes<T>(load(m + radius) == zero);
      r.hidden_rows[b] = !hidden ? 0 : at == top ? 1 : rows[at - top - 1].hidden_rows[b] + 1;
      r.empty[b] = r.gap[b] = false;
      V share = one, inverse = one;
      if (!full) {
        share = tap[0] * load(m + radius);
        for (int k = 1; k <= radius; ++k)
          share += tap[k] * (load(m + radius - k) + load(m + radius + k));
        inverse = share > zero ? one / share : zero;
        r.empty[b] = all_lanes<T>(share == zero);
        r.gap[b] = !all_lanes<T>(share > zero);
      }
      store(r.share + b * N, share);
      store(r.inverse_share + b * N, inverse);
    }
    auto own_root = zero == zero;  // as ones and zeros are
    for (int j = 0; j < kColumns; j += N)
      own_root &= load(r.root + j) * load(r.root + j) == load(r.root + j);
    if (all_lanes<T>(own_root)) return;
    for (int j = 0; j < kColumns; j += N) store(r.root + j, square_root<T>(load(r.root + j)));
  }

  // Computes 1/(G*m) of a row of windows.
  LAMP_NOINLINE void invert(int64_t at) {
    const V zero = {}, one = zero + T(1);
    const int radius = p.radius;
    const T* share[2 * kMaxRadius + 1];
    for (int k = -radius; k <= radius; ++k) share[radius + k] = of(seen_as(at + k)).share;
    for (int b = 0; b < blocks; ++b) {
      V inverse = one;
      if (!is_full(at, 1, b * N) && !is_hidden(at, 1, b * N)) {
        V sum = tap[0] * load(share[radius] + b * N);
        for (int k = 1; k <= radius; ++k)
          sum += tap[k] * (load(share[radius - k] + b * N) + load(share[radius + k] + b * N));
        inverse = sum > zero ? one / sum : zero;
      }
      store(rows[at - top].inverse + b * N, inverse);
    }
  }
};

// Moments of windows that may have hidden pixels. v is d or s.
template <class T, int radius>
struct MaskedWindow {
  using V = Vector<T>;
  using Taps = typename Window<T, radius>::Taps;
  static constexpr int N = kLanes<T>;
  static constexpr int kRows = Window<T, radius>::kRows;
  static constexpr int kAboutOne = Window<T, radius>::kAboutOne;

  using RingRows = T[Window<T, radius>::kRing + 1][N];  // of one plane and column of vectors

  struct Row {
    V mean, scatter;  // scatter: the row's variance times its share
  };

  // Along x, with r = sqrt(m): mean = sum of g r (r v) / share, scatter = sum of g (r v - r mean)^2.
  // The mean comes first, because the pixel at the center may be hidden, and so not be a shift.
  // values: r v, root: r; both of the leftmost pixels that the windows see.
  LAMP_INLINE Row along_x(const T* values, const T* root, V inverse_share, const Taps& g) {
    const T *v = values + radius, *r = root + radius;
    V sum = g[0] * (load(r) * load(v));
#pragma GCC unroll 8
    for (int k = 1; k <= radius; ++k)
      sum += g[k] * (load(r - k) * load(v - k) + load(r + k) * load(v + k));
    const V mean = sum * inverse_share, center = load(v) - load(r) * mean;
    V scatter = g[0] * (center * center);
#pragma GCC unroll 8
    for (int k = 1; k <= radius; ++k) {
      const V a = load(v - k) - load(r - k) * mean, b = load(v + k) - load(r + k) * mean;
      scatter += g[k] * (a * a + b * b);
    }
    return {mean, scatter};
  }

  // Writes the mean and scatter of d and s along x, at positions begin .. end - 1, to row `slot` of
  // the ring.
  static LAMP_NOINLINE void convolve(const T* d, const T* s, const T* root, const T* inverse_share,
                                     int begin, int end, const Taps& taps, RingRows* ring,
                                     int slot) {
    const Taps g = taps;
    for (int j = begin; j < end; j += N) {
      RingRows* const out = ring + j / N * 4;
      const V inverse = load(inverse_share + j);
      const Row of_d = along_x(d + j, root + j, inverse, g);
      const Row of_s = along_x(s + j, root + j, inverse, g);
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

  // Mean and variance of kRows windows, relative to a row that all windows see.
  // inverse: 1/(G*m) of each window. j: the first position, an index of `share` and `inverse`.
  static LAMP_NOINLINE void along_y(const Rows& rows, const T* const* inverse, int j, const Taps& g,
                                    V* mean, V* var) {
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
          sum[i] += weighted * g[k < 0 ? -k : k];
          squares[i] += square * g[k < 0 ? -k : k];
        }
      }
      for (int i = 0; i < kAboutOne; ++i) {
        const V normalize = load(inverse[q + i] + j), relative = sum[i] * normalize;
        mean[q + i] = relative + shift;
        var[q + i] = variance(squares[i] * normalize, relative);
      }
    }
  }

  // The same where the row that all windows see may have nothing to see: relative to each window's
  // own mean. That takes twice as long.
  static LAMP_NOINLINE void along_y_beside_gaps(const Rows& rows, const T* const* inverse, int j,
                                                const Taps& g, V* mean, V* var) {
    for (int q = 0; q < kRows; ++q) {
      const V normalize = load(inverse[q] + j);
      V sum = {}, squares = {};
      for (int t = 0; t <= 2 * radius; ++t)
        sum += g[t < radius ? radius - t : t - radius] * load(rows.share[q + t] + j) *
               load(rows.mean[rows.slot[q + t]]);
      mean[q] = sum * normalize;
      for (int t = 0; t <= 2 * radius; ++t) {
        const V v = load(rows.mean[rows.slot[q + t]]) - mean[q];
        squares += g[t < radius ? radius - t : t - radius] *
                   (load(rows.scatter[rows.slot[q + t]]) + load(rows.share[q + t] + j) * v * v);
      }
      var[q] = squares * normalize;
    }
  }
};
