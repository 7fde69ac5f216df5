// Computes one tile of the cosine loss, L = |a - b|^2/4 with a = x/|x|, b = y/|y|, as
// lamp_kernels/reference.py does. Included once per instruction set, inside its namespace.
//
//   pass 1  sums over channels  |x|^2, |y|^2, d . (x + y)     d = x - y
//   pass 2  sum over channels   |e|^2, e = d + px x + py y    a - b is e times a number
//   pass 3  gradients           gx e - hx x, -(gy e + hy y)
//
// px ... hy are numbers of each position. Only pass 1 reads from memory, the others from the cache.
//
// At positions that a mask hides, loss and gradients are selected to be 0, whatever the numbers are.
//
// A line is what vectors run along: some positions of one channel, or, for images whose channels are
// contiguous, some channels of one position.

template <class T, int gradients>
class CosineTile {
  using V = Vector<T>;
  static constexpr int N = kLanes<T>;
  static constexpr int kPositions = int(CosineParams::kPositions);
  static constexpr int kLine = 256;  // the longest line of channels
  static constexpr int kBlock = 64;  // channels summed in one go, so that rounding errors stay few
  static constexpr int kAhead = 8;   // channels that are prefetched
  // Vectors of positions that are processed at the same time: as many as there are registers for.
  static constexpr int kTogether = LAMP_VECTOR_BYTES == 64 ? 4 : 2;

 public:
  struct Workspace {
    alignas(64) T xx[kPositions], yy[kPositions], ds[kPositions], ee[kPositions];  // the sums
    alignas(64) T px[kPositions], py[kPositions];
    alignas(64) T gx[kPositions], hx[kPositions], gy[kPositions], hy[kPositions];
    alignas(64) T weight[kPositions], mask[kPositions], map[kPositions];
    alignas(64) T x[kLine], y[kLine], first[kLine], second[kLine];  // lines, and their gradients
  };

  CosineTile(const CosineParams& params, const Tile& t, Workspace& workspace)
      : p(params.p), tile(t), w(workspace), along_channels(params.along_channels),
        count(int(t.end_column - t.column)), epsilon(T(params.epsilon)),
        amplification_(amplification<T>(params.p)), factor(factor_of(params.p, t.image)),
        x(turned(p.input)), y(turned(p.target)), to_x(turned(p.input_gradient)),
        to_y(turned(p.target_gradient)) {}

  // Adds the sum of weight * A(L) to `sum`.
  void run(double& sum) {
    // The last vector of positions may run past the end: zero vectors.
    for (T* each : {w.xx, w.yy, w.ds, w.ee, w.weight, w.mask})
      std::fill(each + count, each + round_up(count, N), T(0));
    if (p.weight.data) read_row(p.weight, tile.image, 0, tile.row, tile.column, count, w.weight);
    if (p.mask.data) read_row(p.mask, tile.image, 0, tile.row, tile.column, count, w.mask);
    T* const first[] = {w.xx, w.yy, w.ds};
    sum_channels(first, [](V x, V y, V, V, V* sums) LAMP_INLINE_LAMBDA {
      sums[0] += x * x;
      sums[1] += y * y;
      sums[2] += (x - y) * (x + y);
    });
    for (int j = 0; j < count; j += N) prepare(j);
    T* const second[] = {w.ee};
    sum_channels(second, [](V x, V y, V px, V py, V* sums) LAMP_INLINE_LAMBDA {
      const V e = apart(x, y, px, py);
      sums[0] += e * e;
    });
    V total = {};
    for (int j = 0; j < count; j += N) total += within<T>(losses(j), j, 0, count);
    sum += sum_of_lanes<T>(total);
    if (p.map.data) write_row(p.map, tile.image, 0, tile.row, tile.column, count, w.map);
    if constexpr (gradients > 0) p.mask.data ? differentiate<true>() : differentiate<false>();
  }

 private:
  const Params& p;
  const Tile tile;
  Workspace& w;
  const bool along_channels;
  const int count;  // of positions
  const T epsilon;
  const Amplification<T> amplification_;
  const T factor;
  // Their columns are what lines run along, and their channels count the lines.
  const ConstTensorView x, y;
  const TensorView to_x, to_y;

  static T factor_of(const Params& p, int64_t image) {
    if (!p.factors) return T(p.shared_factors[0]);
    return static_cast<const T*>(p.factors)[p.map.data ? 0 : image];
  }
  template <class View>
  View turned(View s) const {
    if (along_channels) std::swap(s.channel, s.column);
    return s;
  }

  // ---- The numbers of each position --------------------------------------------------------------

  struct Norms {
    V x, y;                                   // at least epsilon
    typename bits<V>::type small_x, small_y;  // whether epsilon replaces the norm
  };
  LAMP_INLINE Norms norms_at(const Workspace& w, int j, T epsilon) {
    const V x = square_root<T>(load(w.xx + j)), y = square_root<T>(load(w.yy + j));
    const V least = V{} + epsilon;
    return {x < least ? least : x, y < least ? least : y, x < least, y < least};
  }

  // e = d - y (|x| - |y|)/|y|, or for |x| < |y| with x instead of y and the norms swapped.
  void prepare(int j) {
    const Norms n = norms_at(w, j, epsilon);
    const V apart = (n.small_x | n.small_y) ? n.x - n.y : quotient(load(w.ds + j), n.x + n.y);
    const auto larger = n.x >= n.y;
    const V ratio = -quotient(apart, larger ? n.y : n.x);
    store(w.px + j, larger ? V{} : ratio);
    store(w.py + j, larger ? ratio : V{});
  }

  // Returns weight * A(L); prepares the gradients and the map.
  V losses(int j) {
    const Norms n = norms_at(w, j, epsilon);
    const V one = V{} + T(1), zero = V{};
    const V inverse = quotient(one, n.x >= n.y ? n.x : n.y);  // a - b = e * inverse
    const V loss = T(0.25) * load(w.ee + j) * inverse * inverse;
    const Amplified<V> amplified = amplify<T>(loss, amplification_);
    const V weight = p.weight.data ? load(w.weight + j) : one;
    auto seen = [&](V value) LAMP_INLINE_LAMBDA {
      return p.mask.data && load(w.mask + j) == zero ? zero : value;
    };
    if (p.map.data) store(w.map + j, seen(amplified.value * factor));
    if constexpr (gradients > 0) {
      // dL/dx = ((a - b) - (a . (a - b)) a)/(2 |x|), where a . (a - b) is 2 L between unit vectors.
      const V half_slope = T(0.5) * weight * factor * amplified.slope;
      const V ix = quotient(one, n.x), iy = quotient(one, n.y);
      const V square_x = n.small_x ? load(w.xx + j) * ix * ix : one;  // |a|^2
      const V square_y = n.small_y ? load(w.yy + j) * iy * iy : one;
      const V half = T(0.5) * (square_x - square_y);
      store(w.gx + j, half_slope * inverse * ix);
      store(w.hx + j, n.small_x ? zero : half_slope * (loss + loss + half) * ix * ix);
      store(w.gy + j, half_slope * inverse * iy);
      store(w.hy + j, n.small_y ? zero : half_slope * (loss + loss - half) * iy * iy);
    }
    return seen(weight * amplified.value);
  }

  LAMP_INLINE V apart(V x, V y, V px, V py) { return (x - y) + x * px + y * py; }

  // ---- Lines -------------------------------------------------------------------------------------

  // Elements of a line: in place if that is possible, otherwise a copy, with zeros up to `length`.
  LAMP_INLINE const T* line_of(const ConstTensorView& s, const Tile& t, int64_t line, int64_t first,
                               int number, int length, T* buffer) {
    if (s.column == 1 && s.dtype == dtype_of<T> && number == length)
      return static_cast<const T*>(s.data) + t.image * s.batch + line * s.channel + t.row * s.row +
             first;
    read_row(s, t.image, line, t.row, first, number, buffer);
    std::fill(buffer + number, buffer + length, T(0));
    return buffer;
  }
  // Where to store a line of a gradient: in place, or in a buffer that `finish_line` writes.
  LAMP_INLINE T* room_for(const TensorView& s, const Tile& t, int64_t line, int64_t first,
                          int number, int length, T* buffer) {
    if (s.column != 1 || number != length) return buffer;
    return static_cast<T*>(s.data) + t.image * s.batch + line * s.channel + t.row * s.row + first;
  }
  LAMP_INLINE void finish_line(const TensorView& s, const Tile& t, int64_t line, int64_t first,
                               int number, const T* written, const T* buffer) {
    if (written == buffer) write_row(s, t.image, line, t.row, first, number, buffer);
  }

  // Calls f(j, together) for all positions j of the tile, in steps of `together` vectors.
  template <int most, class F>
  LAMP_INLINE void for_positions(int count, F f) {
    int j = 0;
    for (; j + most * N <= count; j += most * N) f(j, std::integral_constant<int, most>());
    for (; j < count; j += N) f(j, std::integral_constant<int, 1>());
  }

  // ---- Passes 1 and 2 ----------------------------------------------------------------------------

  // to[k][j] = sum over the channels of what f(x, y, px, py, sums) adds to sums[k], for position j.
  template <int sums, class F>
  LAMP_NOINLINE void sum_channels(T* const (&to)[sums], F f) {
    if (along_channels) {
      for (int j = 0; j < count; ++j) sum_position<sums>(to, j, f);
    } else {
      for_positions<kTogether>(count, [&](int j, auto together) LAMP_INLINE_LAMBDA {
        sum_positions<sums, together>(to, j, f);
      });
    }
  }

  template <int sums, int together, class F>
  void sum_positions(T* const (&to)[sums], int j, F f) {
    constexpr int length = together * N;
    const int number = std::min(length, count - j);
    V px[together], py[together], total[together][sums] = {};
    for (int g = 0; g < together; ++g)
      px[g] = load(w.px + j + g * N), py[g] = load(w.py + j + g * N);
    const int64_t first = tile.column + j;
    for (int64_t channel = 0; channel < p.channels;) {
      V part[together][sums] = {};
      for (const int64_t end = std::min(channel + kBlock, p.channels); channel < end; ++channel) {
        if (channel + kAhead < p.channels)
          for (const ConstTensorView* s : {&x, &y})
            prefetch_row(*s, tile.image, channel + kAhead, tile.row, first, number);
        const T* const xs = line_of(x, tile, channel, first, number, length, w.x);
        const T* const ys = line_of(y, tile, channel, first, number, length, w.y);
        LAMP_UNROLL
        for (int g = 0; g < together; ++g)
          f(load(xs + g * N), load(ys + g * N), px[g], py[g], part[g]);
      }
      for (int g = 0; g < together; ++g)
        for (int k = 0; k < sums; ++k) total[g][k] += part[g][k];
    }
    for (int g = 0; g < together; ++g)
      for (int k = 0; k < sums; ++k) store(to[k] + j + g * N, total[g][k]);
  }

  // The sum of the lanes, in the order of a binary tree, which is faster than that of `sum_of_lanes`.
  template <int half>
  LAMP_INLINE T folded(V v) {
    if constexpr (half == 0)
      return v[0];
    else
      return folded<half / 2>(v + shifted<half>(v, v, std::make_integer_sequence<int, N>()));
  }

  template <int sums, class F>
  void sum_position(T* const (&to)[sums], int j, F f) {
    const V px = V{} + w.px[j], py = V{} + w.py[j];
    T total[sums] = {};
    for (int64_t channel = 0; channel < p.channels; channel += kLine) {
      const int number = int(std::min<int64_t>(kLine, p.channels - channel));
      const int length = int(round_up(number, N));
      const T* const xs = line_of(x, tile, tile.column + j, channel, number, length, w.x);
      const T* const ys = line_of(y, tile, tile.column + j, channel, number, length, w.y);
      V part[2][sums] = {};  // two, so that an addition need not wait for the previous one
      int i = 0;
      for (; i + 2 * N <= length; i += 2 * N) {
        f(load(xs + i), load(ys + i), px, py, part[0]);
        f(load(xs + i + N), load(ys + i + N), px, py, part[1]);
      }
      if (i < length) f(load(xs + i), load(ys + i), px, py, part[0]);
      for (int k = 0; k < sums; ++k) total[k] += folded<N / 2>(part[0][k] + part[1][k]);
    }
    for (int k = 0; k < sums; ++k) to[k][j] = total[k];
  }

  // ---- Pass 3 ------------------------------------------------------------------------------------

  template <bool masked>
  LAMP_NOINLINE void differentiate() {
    if (along_channels) {
      for (int j = 0; j < count; ++j) {
        const Slopes slopes = {V{} + w.px[j], V{} + w.py[j], V{} + w.gx[j],  V{} + w.hx[j],
                               V{} + w.gy[j], V{} + w.hy[j], V{} + w.mask[j]};
        for (int64_t channel = 0; channel < p.channels; channel += kLine) {
          const int number = int(std::min<int64_t>(kLine, p.channels - channel));
          gradient_of<masked>(tile.column + j, channel, number, &slopes, 0);
        }
      }
    } else {
      for_positions<kTogether>(count, [&](int j, auto together) LAMP_INLINE_LAMBDA {
        Slopes slopes[together];
        for (int g = 0; g < together; ++g) {
          const int at = j + g * N;
          slopes[g] = {load(w.px + at), load(w.py + at), load(w.gx + at),  load(w.hx + at),
                       load(w.gy + at), load(w.hy + at), load(w.mask + at)};
        }
        const int number = std::min(together * N, count - j);
        for (int64_t channel = 0; channel < p.channels; ++channel) {
          if (channel + kAhead < p.channels) {
            prefetch_row<T>(to_x, tile.image, channel + kAhead, tile.row, tile.column + j, number);
            if constexpr (gradients == 2)
              prefetch_row<T>(to_y, tile.image, channel + kAhead, tile.row, tile.column + j,
                              number);
          }
          gradient_of<masked>(channel, tile.column + j, number, slopes, 1);
        }
      });
    }
  }

  struct Slopes {
    V px, py, gx, hx, gy, hy, mask;
  };

  // One line of the gradients. Its vector number v has the slopes number v * step.
  template <bool masked>
  inline LAMP_INLINE_LAMBDA void gradient_of(int64_t line, int64_t first, int number,
                                             const Slopes* slopes, int step) {
    const int length = int(round_up(number, N));
    const T* const xs = line_of(x, tile, line, first, number, length, w.x);
    const T* const ys = line_of(y, tile, line, first, number, length, w.y);
    T* const dx = room_for(to_x, tile, line, first, number, length, w.first);
    T* const dy =
        gradients == 2 ? room_for(to_y, tile, line, first, number, length, w.second) : nullptr;
    for (int i = 0; i < length; i += N, slopes += step) {
      const Slopes& s = *slopes;
      const V x = load(xs + i), y = load(ys + i), e = apart(x, y, s.px, s.py);
      auto seen = [&](V value) LAMP_INLINE_LAMBDA {
        if constexpr (masked) return s.mask == V{} ? V{} : value;
        return value;
      };
      store(dx + i, seen(s.gx * e - s.hx * x));
      if constexpr (gradients == 2) store(dy + i, seen(-(s.gy * e + s.hy * y)));
    }
    finish_line(to_x, tile, line, first, number, dx, w.first);
    if constexpr (gradients == 2) finish_line(to_y, tile, line, first, number, dy, w.second);
  }
};
