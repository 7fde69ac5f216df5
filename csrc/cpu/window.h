// The constants of SSIM's window in the CPU kernels. Included once per instruction set, inside its
// namespace.

template <class T, int radius>
struct Window {
  static constexpr int N = kLanes<T>;
  static constexpr int kTaps = 2 * radius + 1;
  static constexpr int kRows = LAMP_ROWS;          // per step: their windows share loads
  static constexpr int kRing = kRows + kTaps - 1;  // the rows that kRows windows see
  // How many rows of windows share one shift row, which all of them see.
  static constexpr int kAboutOne = std::min(kRows, radius >= 4 ? 8 : radius >= 2 ? 4 : 2);

  // The taps by their distance from the center.
  struct Taps {
    T tap[radius + 1];
    T operator[](int k) const { return tap[k]; }
  };
};
