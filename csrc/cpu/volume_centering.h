// The shifts of a box of a volume; see centering.h. Included once per instruction set, inside its
// namespace.

// As for a tile of a plane, from one-vector pieces of rows all over the box. They begin at the
// points (i / g, i / g^2, i / g^3) modulo 1, g^4 = g + 1 (Roberts' R3 sequence, in units of 2^-32).
template <class T>
LAMP_NOINLINE static Shifts<T> shifts_of(const Volume& volume, const Box& box, T scale) {
  constexpr int N = kLanes<T>;
  const Params& p = volume.plane;
  const Tile& t = box.tile;
  const bool weighted = p.weight.data;
  struct Side {
    int64_t first, end;
    int64_t size() const { return end - first; }
  };
  // The weight may cover only the loss's grid.
  auto side = [&](int64_t first, int64_t end, int64_t size) -> Side {
    if (!weighted) return {first, end};
    const int64_t border = p.first_row();
    first = std::min(std::max(first, border), size - border - 1);
    return {first, std::max(std::min(end, size - border), first + 1)};
  };
  const Side planes = side(box.plane, box.end_plane, volume.depth);
  const Side rows = side(t.row, t.end_row, p.height);
  const Side columns = side(t.column, t.end_column, p.width);
  const int64_t count = std::min<int64_t>(columns.size(), N);
  // A row narrower than a vector is padded with its last voxel.
  auto piece = [&](const ConstTensorView& s, int64_t row, int64_t column) {
    T buffer[N];
    read_row(s, t.image, t.channel, row, column, count, buffer);
    std::fill(buffer + count, buffer + N, buffer[count - 1]);
    return load(buffer);
  };
  auto sums_of = [&](bool by_weight) {
    ShiftSums<T> sums;
    const int64_t voxels = planes.size() * rows.size() * columns.size();
    const int64_t pieces = std::clamp<int64_t>(voxels / (32 * N), 256 / N, 512 / N);
    auto point = [](int64_t i, int64_t step, int64_t size) {
      return int64_t(uint32_t(i * step)) * size >> 32;
    };
    for (int64_t i = 0; i < pieces; ++i) {
      const Params at = volume.at(planes.first + point(i, 3518319155, planes.size()));
      const int64_t row = rows.first + point(i, 2882110345, rows.size());
      const int64_t column = columns.first + point(i, 2360945575, columns.size() - count + 1);
      sums.add(piece(at.input, row, column), piece(at.target, row, column),
               by_weight ? piece(at.weight, row, column) : Vector<T>{} + T(1), scale);
    }
    return sums;
  };
  const ShiftSums<T> sums = sums_of(weighted);
  return weighted && sums.empty() ? sums_of(false).shifts() : sums.shifts();
}
