// What SSIM needs of the mask in one tile, computed once for all channels that share the mask.
// Included once per instruction set, inside its namespace.
//
// With a mask m, a window takes the mean G*(m v)/G*m. The window is separable, so this is done in
// two steps: `share` is the window's sum of m along x, by which the moments of a row are divided,
// and G*m is the window's sum of the shares along y, kept as its reciprocal.
//
// The mask of ones must cost no bit, and where it is 1 it should cost little time: the kernel treats
// windows without hidden pixels as if there were no mask. They are found in blocks, one vector of
// positions wide.
//
// A tile of 256 x 256 pixels needs a megabyte of rows, as much as an L2 cache. So rows without
// hidden pixels are not stored, and what is known of the blocks is kept apart from the rows.

template <class T>
class MaskTile {
  using V = Vector<T>;
  static constexpr int N = kLanes<T>;
  static constexpr int kBlocks = int(ceil_div(Tiling::kWidest + 4 * kMaxRadius, int64_t(N))) + 1;
  static constexpr int kColumns = kBlocks * N;
  // A window with less of the mask sees nothing: the reciprocal of a smaller number might not be
  // finite.
  static constexpr T kLeast = 16 * std::numeric_limits<T>::min();

  // A row of the image. The columns of `m` are those of the pixels that windows see, the others'
  // are window positions.
  struct Row {
    alignas(64) T m[kColumns];
    alignas(64) T share[kColumns];    // of the window along x; 0 where it sees nothing
    alignas(64) T inverse[kColumns];  // 1/(G*m), 0 where G*m is
  };
  // What a row's windows see, by block.
  struct Blocks {
    // How many rows, down to this one, have windows without a hidden pixel, and hidden centers.
    int full_rows[kBlocks], hidden_rows[kBlocks];
    bool empty[kBlocks];  // whether all shares are 0
    bool ones;            // whether m and the shares are 1, and not stored
    bool inverse_ones;    // the same of 1/(G*m)
  };

 public:
  static int64_t bytes(const Params& p, const Tiling& tiling) {
    return 2 * int64_t(sizeof(Row)) + kept_rows(p, tiling) * int64_t(sizeof(Row) + sizeof(Blocks));
  }

  // memory: `bytes` of it, aligned to 64.
  MaskTile(const Params& params, const Tiling& tiling, void* memory)
      : p(params), outside(static_cast<Row*>(memory)), ones(outside + 1), rows(ones + 1),
        blocks(reinterpret_cast<Blocks*>(rows + kept_rows(p, tiling))) {
    for (int k = 0; k <= p.radius; ++k) tap[k] = T(p.taps[k]);
  }

  // Computes the rows that the losses of a tile see, and of the `reach` rows above and below it.
  void compute(const Context<T>& c, int reach) {
    const Tile& t = c.tile;
    const int64_t of = t.image * p.mask.batch + t.channel * p.mask.channel;
    if (of == mask && t.row == row && t.column == column) return;
    mask = of, row = t.row, column = t.column;
    constexpr int kValues = sizeof(Row) / sizeof(T);
    std::fill(outside->m, outside->m + kValues, T(0));
    std::fill(ones->m, ones->m + kValues, T(1));
    const int64_t first = std::max(p.first_row(), t.row - reach);
    const int64_t end = std::min(p.end_row(), t.end_row + reach);
    top = std::max<int64_t>(0, first - p.radius);
    const int64_t bottom = std::min(p.height, end + p.radius);
    used = int(ceil_div(c.columns + 2 * p.radius, N));
    for (int64_t at = top; at < bottom; ++at) {
      read(c, at);
      shares(at);
    }
    for (int64_t at = first; at < end; ++at) invert(at);
  }

  const T* m(int64_t at) const { return seen(at).m; }
  const T* share(int64_t at) const { return seen(at).share; }
  const T* inverse(int64_t at) const {
    return (at < 0 ? *outside : blocks_of(at).inverse_ones ? *ones : rows[at - top]).inverse;
  }
  // The image row that windows see as row `at`, or -1 if they see nothing there.
  int64_t seen_as(int64_t at) const {
    if (at >= 0 && at < p.height) return at;
    if (p.border != Border::reflect) return -1;
    return at < 0 ? -at : 2 * (p.height - 1) - at;
  }
  // What the windows at positions j .. j + N - 1 see of the pixels of row `at`.
  enum class Sight { all, some, none };
  Sight sight(int64_t at, int j) const {
    const Blocks& r = blocks_of(at);
    return r.full_rows[j / N] ? Sight::all : r.empty[j / N] ? Sight::none : Sight::some;
  }
  // Whether no window sees a hidden pixel of row `at`.
  bool is_full(int64_t at) const { return blocks_of(at).ones; }
  // Whether these windows, in rows `at` .. `at` + count - 1, all have hidden centers.
  bool is_hidden(int64_t at, int count, int j) const {
    return blocks_of(at + count - 1).hidden_rows[j / N] >= count;
  }
  // Whether they have no hidden pixel.
  bool is_full(int64_t at, int count, int j) const {
    const int64_t above = at - p.radius, below = at + count - 1 + p.radius;
    if (p.border == Border::zeros && (above < 0 || below >= p.height)) return false;
    const int64_t first = std::max<int64_t>(above, 0), last = std::min(below, p.height - 1);
    return blocks_of(last).full_rows[j / N] > last - first;
  }

 private:
  const Params& p;
  T tap[kMaxRadius + 1];
  Row *const outside, *const ones, *const rows;  // outside: stands for all rows beyond the border
  Blocks* const blocks;                          // of `rows`
  int64_t mask = -1, row = -1, column = -1;      // which tile this is
  int64_t top = 0;                               // the image row of rows[0]
  int used = 0;                                  // blocks of a row

  static int64_t kept_rows(const Params& p, const Tiling& tiling) {
    return tiling.band_height + 4 * p.radius;
  }
  const Blocks& blocks_of(int64_t at) const { return blocks[at - top]; }
  const Row& seen(int64_t at) const {
    return at < 0 ? *outside : blocks_of(at).ones ? *ones : rows[at - top];
  }

  // Reads m, and fills in what lies beyond the border.
  void read(const Context<T>& c, int64_t at) {
    T* const m = rows[at - top].m;
    const int64_t start = c.tile.column - 2 * p.radius;  // image column of the first pixel
    const int64_t seen = start + c.columns + 4 * p.radius;
    const int64_t low = std::max<int64_t>(start, 0), high = std::min(seen, p.width);
    const T beyond = p.border == Border::zeros ? T(0) : T(1);
    std::fill(m, m + (low - start), beyond);
    c.read(p.mask, at, low, high - low, m + (low - start));
    if (at + kRowsAhead < p.height)
      prefetch_row(p.mask, c.tile.image, c.tile.channel, at + kRowsAhead, low, high - low);
    std::fill(m + (high - start), m + (seen - start), beyond);
    std::fill(m + (seen - start), m + kColumns, T(1));
    if (p.border != Border::reflect) return;
    for (int64_t i = start; i < 0; ++i) m[i - start] = m[std::min(-i, p.width - 1) - start];
    for (int64_t i = p.width; i < seen; ++i)
      m[i - start] = m[std::max<int64_t>(2 * (p.width - 1) - i, 0) - start];
  }

  // Computes a row's shares from m.
  LAMP_NOINLINE void shares(int64_t at) {
    Row& r = rows[at - top];
    Blocks& sees = blocks[at - top];
    const Blocks* const above = at == top ? nullptr : &sees - 1;
    const int radius = p.radius;
    const V zero = {}, one = zero + T(1);
    sees.ones = true;
    for (int b = 0; b < used; ++b) {
      const T* const m = r.m + b * N;  // of the leftmost pixels that the windows see
      auto ones = load(m) == one;
      for (int k = N; k < 2 * radius; k += N) ones &= load(m + k) == one;
      ones &= load(m + 2 * radius) == one;
      const bool full = all_lanes<T>(ones);
      const bool hidden = !full && all_lanes<T>(load(m + radius) == zero);
      sees.full_rows[b] = !full ? 0 : above ? above->full_rows[b] + 1 : 1;
      sees.hidden_rows[b] = !hidden ? 0 : above ? above->hidden_rows[b] + 1 : 1;
      sees.empty[b] = false;
      sees.ones &= full;
      V share = one;
      if (!full) {
        share = tap[0] * load(m + radius);
        for (int k = 1; k <= radius; ++k)
          share += tap[k] * (load(m + radius - k) + load(m + radius + k));
        share = share < kLeast ? zero : share;
        sees.empty[b] = all_lanes<T>(share == zero);
      }
      store(r.share + b * N, share);
    }
  }

  // Computes 1/(G*m) of a row of windows.
  LAMP_NOINLINE void invert(int64_t at) {
    const V zero = {}, one = zero + T(1);
    const int radius = p.radius;
    bool& ones = blocks[at - top].inverse_ones;
    ones = true;
    for (int b = 0; ones && b < used; ++b) ones = is_full(at, 1, b * N);
    if (ones) return;
    const T* share[2 * kMaxRadius + 1];
    for (int k = -radius; k <= radius; ++k) share[radius + k] = this->share(seen_as(at + k));
    for (int b = 0; b < used; ++b) {
      V inverse = one;
      if (!is_full(at, 1, b * N) && !is_hidden(at, 1, b * N)) {
        V sum = tap[0] * load(share[radius] + b * N);
        for (int k = 1; k <= radius; ++k)
          sum += tap[k] * (load(share[radius - k] + b * N) + load(share[radius + k] + b * N));
        inverse = sum < kLeast ? zero : one / sum;
      }
      store(rows[at - top].inverse + b * N, inverse);
    }
  }
};
