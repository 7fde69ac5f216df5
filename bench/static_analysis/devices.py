"""Published specifications of GPU targets and devices."""

from dataclasses import dataclass

REGISTERS = 65536  # per multiprocessor, on all targets listed here
WARP = 32


@dataclass(frozen=True)
class Target:
    """A multiprocessor of one compute capability.

    The limits are from the CUDA C++ Programming Guide, "Technical Specifications per Compute
    Capability"; the lanes, in results per cycle and multiprocessor, from its "Throughput of Native
    Arithmetic Instructions".
    """

    name: str
    warps: int
    blocks: int
    shared_memory: int  # bytes
    shared_memory_of_block: int
    reserved: int  # bytes that the system reserves for each block
    float32: int
    integer: int
    float64: int
    # A device for which to choose tiles, which depend on its number of multiprocessors.
    example: str
    multiprocessors: int
    special: int = 16
    schedulers: int = 4


KIB = 1024
TARGETS = {
    75: Target("sm_75", 32, 16, 64 * KIB, 64 * KIB, 0, 64, 64, 2, "T4", 40),
    80: Target("sm_80", 64, 32, 164 * KIB, 163 * KIB, KIB, 64, 64, 32, "A100", 108),
    86: Target("sm_86", 48, 16, 100 * KIB, 99 * KIB, KIB, 128, 64, 2, "RTX 3090", 82),
    89: Target("sm_89", 48, 24, 100 * KIB, 99 * KIB, KIB, 128, 64, 2, "RTX 4090", 128),
    90: Target("sm_90", 64, 32, 228 * KIB, 227 * KIB, KIB, 128, 64, 64, "H100 SXM", 132),
    100: Target("sm_100", 64, 32, 228 * KIB, 227 * KIB, KIB, 128, 64, 64, "B200", 148),
    120: Target("sm_120", 48, 24, 100 * KIB, 99 * KIB, KIB, 128, 64, 2, "RTX 5090", 170),
}


@dataclass(frozen=True)
class Device:
    """A GPU at its boost clock, as specified by its manufacturer."""

    name: str
    target: Target
    multiprocessors: int
    clock: float  # Hz
    bandwidth: float  # of the DRAM, bytes per second
    cache: float  # L2, bytes
    source: str

    @property
    def issue_cycles(self) -> float:
        """Cycles in which a scheduler issues a float32 instruction, as in csrc/cuda/launch.cu."""
        return 4 / 3 if self.target.float32 == 64 else 1.0


DEVICES = (
    Device(
        "A100 SXM 80 GB",
        TARGETS[80],
        108,
        1.41e9,
        2039e9,
        40e6,
        "NVIDIA A100 datasheet (2,039 GB/s) and architecture whitepaper (108 SMs, 1,410 MHz)",
    ),
    Device(
        "H100 SXM",
        TARGETS[90],
        132,
        1.98e9,
        3350e9,
        50e6,
        "NVIDIA H100 datasheet (3.35 TB/s; 67 TFLOPS of float32 are 132 SMs at 1.98 GHz)",
    ),
    Device(
        "RTX 4090",
        TARGETS[89],
        128,
        2.52e9,
        1008e9,
        72e6,
        "NVIDIA Ada architecture whitepaper (128 SMs, 2,520 MHz, 1,008 GB/s)",
    ),
    Device(
        "H200 SXM",
        TARGETS[90],
        132,
        1.98e9,
        4800e9,
        50e6,
        "NVIDIA H200 datasheet (4.8 TB/s; 67 TFLOPS of float32 are 132 SMs at 1.98 GHz)",
    ),
    Device(
        "B200",
        TARGETS[100],
        148,
        1.98e9,
        8000e9,
        126e6,
        "NVIDIA Blackwell datasheet, HGX B200 (8 TB/s; 75 TFLOPS of float32: 148 SMs at 1.98 GHz)",
    ),
    Device(
        "L4",
        TARGETS[89],
        58,
        2.04e9,
        300e9,
        48e6,
        "NVIDIA L4 datasheet (300 GB/s; 30.3 TFLOPS of float32 are 58 SMs at 2.04 GHz)",
    ),
    Device(
        "RTX 5090",
        TARGETS[120],
        170,
        2.407e9,
        1792e9,
        96e6,
        "NVIDIA RTX Blackwell architecture whitepaper (170 SMs, 2,407 MHz, 1,792 GB/s)",
    ),
)


@dataclass(frozen=True)
class Occupancy:
    """The blocks and warps resident on one multiprocessor, and the resource that limits them."""

    blocks: int
    warps: int
    limit: str


def occupancy(target: Target, threads: int, registers: int, shared_memory: int) -> Occupancy:
    """Compute the occupancy as NVIDIA's occupancy calculator does.

    Warps get registers in units of 256, from the quarter of the register file that belongs to
    their scheduler. Blocks get shared memory in units of 128 bytes (256 on sm_75); here, this
    rounding costs less than a block.
    """
    warps = -(-threads // WARP)
    of_warp = -(-max(registers, 1) * WARP // 256) * 256
    by_registers = REGISTERS // target.schedulers // of_warp * target.schedulers // warps
    unit = 256 if target.reserved == 0 else 128
    of_block = -(-(shared_memory + target.reserved) // unit) * unit
    limits = {
        "registers": by_registers,
        "shared memory": target.shared_memory // of_block if of_block else target.blocks,
        "warps": target.warps // warps,
        "blocks": target.blocks,
    }
    limit = min(limits, key=lambda name: limits[name])
    return Occupancy(limits[limit], limits[limit] * warps, limit)
